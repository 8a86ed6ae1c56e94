PRAGMA application_id = 1869046132;
PRAGMA user_version = 7;
BEGIN TRANSACTION;
CREATE TABLE audit_events (
    seq      INTEGER PRIMARY KEY,
    at_us    INTEGER NOT NULL, -- when it was written, UTC microseconds
    kind     TEXT NOT NULL,    -- policy | exchange | refusal | break
    document TEXT NOT NULL,    -- JSON
    hash     TEXT NOT NULL     -- HMAC-SHA-256 of the event and the hash before it, hexadecimal
) STRICT;
INSERT INTO "audit_events" VALUES(1,1795262400000000,'policy','{"operator":"ada","kind":"team","name":"core","before":null,"after":{"budgets":[{"window":"month","usd":"500"}]}}','2347eb0cc8b7ce9ca4f5a139abe2ebc81fad313b6022f4bddc3bfaa1b09b56b8');
CREATE TABLE audit_heads (
    id   INTEGER PRIMARY KEY CHECK (id = 0),
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL,
    seal TEXT NOT NULL -- HMAC-SHA-256 of both, hexadecimal
) STRICT;
INSERT INTO "audit_heads" VALUES(0,1,'2347eb0cc8b7ce9ca4f5a139abe2ebc81fad313b6022f4bddc3bfaa1b09b56b8','4d603b9bab775d261bc662baa03e266298c0c69b861cca96a90d59d226a1952a');
CREATE TABLE budget_leases (
    budget_id       TEXT NOT NULL,
    window_start_us INTEGER NOT NULL,
    process_id      TEXT NOT NULL,    -- the name of its journal
    amount          INTEGER NOT NULL, -- nano-dollars or tokens
    PRIMARY KEY (budget_id, window_start_us, process_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "budget_leases" VALUES('team:core/month/usd',1793491200000000,'01JD00000000000000000000PR',1000000);
CREATE TABLE budget_windows (
    budget_id       TEXT NOT NULL,    -- `team:core/month/usd`
    window_start_us INTEGER NOT NULL, -- UTC microseconds; 0 for a window that never begins anew
    spent           INTEGER NOT NULL, -- nano-dollars or tokens
    PRIMARY KEY (budget_id, window_start_us)
) STRICT, WITHOUT ROWID;
INSERT INTO "budget_windows" VALUES('team:core/month/usd',1793491200000000,1234567);
CREATE TABLE charges (
    exchange_id     TEXT NOT NULL,
    budget_id       TEXT NOT NULL,
    window_start_us INTEGER NOT NULL, -- the window in which it was admitted
    unit            TEXT NOT NULL,    -- usd | tokens
    reserved        INTEGER NOT NULL, -- its worst case, 0 where the budget only counts
    amount          INTEGER NOT NULL, -- nano-dollars or tokens; what was reserved, where the truth is unknown
    PRIMARY KEY (exchange_id, budget_id, window_start_us)
) STRICT, WITHOUT ROWID;
INSERT INTO "charges" VALUES('01JD0000000000000000000011','team:core/month/usd',1793491200000000,'usd',2000000,1234567);
CREATE TABLE conversations (
    session_id TEXT NOT NULL,
    id         TEXT NOT NULL, -- the agent's own id
    parent_id  TEXT,          -- the conversation that started this one (a sub-agent's)
    title      TEXT,
    kind       TEXT NOT NULL, -- main | subagent | title | compaction | other
    agent_name TEXT, directory TEXT,          -- the agent's word for the role: `build`, `explore`
    PRIMARY KEY (session_id, id)
) STRICT, WITHOUT ROWID;
INSERT INTO "conversations" VALUES('01JD0000000000000000000001','ses_1',NULL,'Fix the loom','main',NULL,'/home/ada/engine');
INSERT INTO "conversations" VALUES('01JD0000000000000000000001','ses_2','ses_1','Fix the loom','subagent','explore',NULL);
CREATE TABLE exchanges (
    id                          TEXT NOT NULL PRIMARY KEY, -- ULID
    session_id                  TEXT NOT NULL,
    conversation_id             TEXT,             -- null where the request named none
    parent_conversation_id      TEXT,
    kind                        TEXT NOT NULL,    -- main | subagent | title | compaction | other
    operation                   TEXT NOT NULL,    -- generate | count_tokens | list_models | other
    wire_format                 TEXT NOT NULL,    -- openai-chat | openai-responses | anthropic | gemini | unknown
    provider_name               TEXT NOT NULL,
    credential_name             TEXT,             -- which of the provider's keys paid
    request_model               TEXT,             -- as the client asked
    response_model              TEXT,             -- as the provider answered
    streamed                    INTEGER NOT NULL, -- 0 | 1
    status                      TEXT NOT NULL,    -- completed | client_disconnected | upstream_error | interrupted | denied | open
    http_status                 INTEGER,          -- what the client received
    error_type                  TEXT,             -- reason of a failure, of few distinct values
    denial                      TEXT,             -- for `denied`: the error code
    attempts                    INTEGER NOT NULL, -- upstream tries; 0 for a denied request
    started_at_us               INTEGER NOT NULL, -- UTC microseconds
    queued_us                   INTEGER,          -- from the request's last byte to the first upstream try
    time_to_first_chunk_us      INTEGER,          -- from the request's last byte to the first content
    duration_us                 INTEGER,          -- from the request's last byte to the end
    input_uncached_tokens       INTEGER,          -- input that touched no prompt cache
    cache_read_input_tokens     INTEGER,          -- input read from the provider's prompt cache
    cache_write_5m_input_tokens INTEGER,          -- input written to it for five minutes
    cache_write_1h_input_tokens INTEGER,          -- input written to it for an hour
    output_tokens               INTEGER,          -- all output, reasoning included
    reasoning_output_tokens     INTEGER,          -- the part of the output that is reasoning
    input_audio_tokens          INTEGER,          -- the part of the input that is audio
    output_audio_tokens         INTEGER,          -- the part of the output that is audio
    usage_quality               TEXT NOT NULL,    -- reported | estimated | unknown
    raw_usage                   TEXT,             -- the provider's usage object, JSON as it came
    reported_cost_nano_usd      INTEGER,          -- what the provider said it costs
    cost_nano_usd               INTEGER,          -- the amount counted
    cost_quality                TEXT NOT NULL,    -- reported | priced | estimated | unknown
    price_source                TEXT,             -- which book priced it, with its version
    finish_reason               TEXT,
    repaired                    TEXT,             -- what was mended in the stream, if anything
    input_tokens                INTEGER AS (      -- all input, cached or not; null if no part is known
        CASE
            WHEN coalesce(input_uncached_tokens, cache_read_input_tokens,
                          cache_write_5m_input_tokens, cache_write_1h_input_tokens) IS NOT NULL
            THEN coalesce(input_uncached_tokens, 0) + coalesce(cache_read_input_tokens, 0)
               + coalesce(cache_write_5m_input_tokens, 0) + coalesce(cache_write_1h_input_tokens, 0)
        END) VIRTUAL,
    cache_creation_input_tokens INTEGER AS (      -- both cache writes
        CASE
            WHEN coalesce(cache_write_5m_input_tokens, cache_write_1h_input_tokens) IS NOT NULL
            THEN coalesce(cache_write_5m_input_tokens, 0) + coalesce(cache_write_1h_input_tokens, 0)
        END) VIRTUAL
, prompt_id TEXT, mode TEXT, tool_set TEXT, tools_called TEXT, gateway_us INTEGER, priced_cost_nano_usd INTEGER, superseded_cost_nano_usd INTEGER, superseded_price_source TEXT, cache_saved_nano_usd INTEGER, virtual_key TEXT, team TEXT, customer TEXT, reserved_cost_nano_usd INTEGER, output_limit_tokens INTEGER, downgraded_from TEXT, decisions TEXT) STRICT;
INSERT INTO "exchanges" VALUES('01JD0000000000000000000011','01JD0000000000000000000001','ses_1',NULL,'main','generate','openai-chat','practice',NULL,'scripted','scripted',1,'completed',200,NULL,NULL,1,1795262400000000,NULL,NULL,1500000,1,20,300,4000,50,6,7,8,'reported','{"prompt_tokens":4321}',NULL,1234567,'priced','genai-prices 0.2.3',NULL,NULL,'msg_1','build','0a1b2c','["glob"]',180,1234567,NULL,'none',42000,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "exchanges" VALUES('01JD0000000000000000000012','01JD0000000000000000000002','ses_1',NULL,'main','generate','openai-chat','practice',NULL,'scripted',NULL,1,'interrupted',NULL,NULL,NULL,1,1795262400000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'unknown',NULL,NULL,NULL,'unknown',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE message_parts (
    started_at_us INTEGER NOT NULL, -- the exchange's
    exchange_id   TEXT NOT NULL,    -- its id
    parts         BLOB NOT NULL     -- 12 bytes a part: 8 of a keyed hash, 4 of length; tools, system, then each message
) STRICT;
INSERT INTO "message_parts" VALUES(1795262400000000,'01JD0000000000000000000011',X'000102030405060708090A0B');
CREATE TABLE policy_documents (
    kind     TEXT NOT NULL, -- session | user | vkey | team | customer
    name     TEXT NOT NULL,
    document TEXT NOT NULL, -- JSON
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "policy_documents" VALUES('team','core','{"budgets":[{"window":"month","usd":"500"}]}');
CREATE TABLE policy_revisions (
    id       INTEGER PRIMARY KEY CHECK (id = 0),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO "policy_revisions" VALUES(0,1);
CREATE TABLE reconciliations (
    session_id TEXT NOT NULL PRIMARY KEY,
    document   TEXT NOT NULL -- JSON: figures, differences with their reasons, bypasses
) STRICT, WITHOUT ROWID;
INSERT INTO "reconciliations" VALUES('01JD0000000000000000000001','{"differences":[]}');
CREATE TABLE sessions (
    id            TEXT NOT NULL PRIMARY KEY, -- ULID
    user          TEXT NOT NULL,             -- who ran it: the name of the account
    agent         TEXT NOT NULL,             -- which coding agent: `opencode`
    agent_version TEXT,
    directory     TEXT NOT NULL,             -- the working directory at launch
    project       TEXT NOT NULL,             -- its name: the repository's, else the folder's
    repository    TEXT,                      -- the repository's address or root
    branch        TEXT,                      -- as of the launch
    "commit"      TEXT,                      -- as of the launch
    time_zone     TEXT NOT NULL,             -- IANA name, for showing local days later
    started_at_us INTEGER NOT NULL,          -- UTC microseconds
    ended_at_us   INTEGER,                   -- null while it runs
    exit_status   INTEGER                    -- the agent's own; null if it was never seen
) STRICT;
INSERT INTO "sessions" VALUES('01JD0000000000000000000001','ada','opencode','1.18.33','/home/ada/engine','engine','git@example.org:ada/engine.git','main','0123abc','Europe/Berlin',1795262400000000,1795263400000000,0);
INSERT INTO "sessions" VALUES('01JD0000000000000000000002','ada','opencode',NULL,'/home/ada/engine','engine',NULL,NULL,NULL,'Europe/Berlin',1795262400000001,NULL,NULL);
CREATE TABLE token_ratios (
    provider_name    TEXT NOT NULL,
    model            TEXT NOT NULL,    -- as it was asked for
    kind             TEXT NOT NULL,    -- what was estimated from what: input_size | output_text | output_size
    estimated_tokens INTEGER NOT NULL,
    reported_tokens  INTEGER NOT NULL,
    answers          INTEGER NOT NULL,
    PRIMARY KEY (provider_name, model, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO "token_ratios" VALUES('acme','m-1','output_text',900,960,4);
CREATE TABLE tool_sets (
    hash         TEXT NOT NULL,    -- of the whole set
    tool_name    TEXT NOT NULL,
    schema_bytes INTEGER NOT NULL, -- size of the tool's definition as it was sent
    PRIMARY KEY (hash, tool_name)
) STRICT, WITHOUT ROWID;
INSERT INTO "tool_sets" VALUES('0a1b2c','glob',512);
CREATE TABLE usage_groups (
    id              INTEGER PRIMARY KEY,
    identity        TEXT NOT NULL UNIQUE, -- the other columns as a JSON list; an empty one in group 0
    provider_name   TEXT,                 -- null only in group 0
    model           TEXT,                 -- as it was asked for, else as it answered
    credential_name TEXT,
    kind            TEXT,                 -- null only in group 0
    mode            TEXT
, virtual_key TEXT, team TEXT, customer TEXT) STRICT;
INSERT INTO "usage_groups" VALUES(0,'[]',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "usage_groups" VALUES(1,'["practice","scripted",null,"main","build",null,null,null]','practice','scripted',NULL,'main','build',NULL,NULL,NULL);
INSERT INTO "usage_groups" VALUES(2,'["practice","scripted",null,"main",null,null,null,null]','practice','scripted',NULL,'main',NULL,NULL,NULL,NULL);
CREATE TABLE usage_sums (
    width_us                          INTEGER NOT NULL, -- how long: 900000000 or 86400000000
    group_id                          INTEGER NOT NULL, -- `usage_groups.id`
    started_at_us                     INTEGER NOT NULL, -- its first microsecond
    exchanges                         INTEGER NOT NULL, -- how many, without the denied ones
    requests                          INTEGER NOT NULL, -- of these, how many were requests
    input_tokens                      INTEGER NOT NULL, -- sums of what is known, 0 where nothing is
    known_input_tokens                INTEGER NOT NULL, -- how many exchanges each sum is over
    cache_read_input_tokens           INTEGER NOT NULL,
    known_cache_read_input_tokens     INTEGER NOT NULL,
    cache_creation_input_tokens       INTEGER NOT NULL,
    known_cache_creation_input_tokens INTEGER NOT NULL,
    output_tokens                     INTEGER NOT NULL,
    known_output_tokens               INTEGER NOT NULL,
    reasoning_output_tokens           INTEGER NOT NULL,
    known_reasoning_output_tokens     INTEGER NOT NULL,
    cost_nano_usd                     INTEGER NOT NULL,
    known_cost_nano_usd               INTEGER NOT NULL,
    reported_costs                    INTEGER NOT NULL, -- costs by their quality
    priced_costs                      INTEGER NOT NULL,
    estimated_costs                   INTEGER NOT NULL,
    doubtful_costs                    INTEGER NOT NULL, -- an amount of unknown quality
    missing_costs                     INTEGER NOT NULL, -- a cost asked for, and unknown
    PRIMARY KEY (width_us, group_id, started_at_us)
) STRICT, WITHOUT ROWID;
INSERT INTO "usage_sums" VALUES(900000000,0,1795262400000000,2,2,4321,1,20,1,4300,1,50,1,6,1,1234567,1,0,1,0,0,1);
INSERT INTO "usage_sums" VALUES(900000000,1,1795262400000000,1,1,4321,1,20,1,4300,1,50,1,6,1,1234567,1,0,1,0,0,0);
INSERT INTO "usage_sums" VALUES(900000000,2,1795262400000000,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO "usage_sums" VALUES(86400000000,0,1795219200000000,2,2,4321,1,20,1,4300,1,50,1,6,1,1234567,1,0,1,0,0,1);
INSERT INTO "usage_sums" VALUES(86400000000,1,1795219200000000,1,1,4321,1,20,1,4300,1,50,1,6,1,1234567,1,0,1,0,0,0);
INSERT INTO "usage_sums" VALUES(86400000000,2,1795219200000000,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1);
CREATE INDEX sessions_started_at ON sessions (started_at_us);
CREATE INDEX exchanges_session ON exchanges (session_id, started_at_us);
CREATE INDEX exchanges_started_at ON exchanges (started_at_us);
CREATE UNIQUE INDEX message_parts_exchange ON message_parts (started_at_us, exchange_id);
CREATE INDEX exchanges_trouble ON exchanges (started_at_us) WHERE status <> 'completed';
CREATE VIEW usage_changes AS SELECT NULL AS exchange_id, NULL AS sign;
CREATE TRIGGER exchanges_added AFTER INSERT ON exchanges BEGIN
    INSERT INTO usage_changes VALUES (new.id, 1);
END;
CREATE TRIGGER exchanges_changing BEFORE UPDATE ON exchanges BEGIN
    INSERT INTO usage_changes VALUES (old.id, -1);
END;
CREATE TRIGGER exchanges_changed AFTER UPDATE ON exchanges BEGIN
    INSERT INTO usage_changes VALUES (new.id, 1);
END;
CREATE TRIGGER exchanges_removing BEFORE DELETE ON exchanges BEGIN
    INSERT INTO usage_changes VALUES (old.id, -1);
END;
CREATE VIEW measured_exchanges AS
SELECT
    id,
    session_id,
    conversation_id,
    started_at_us,
    provider_name,
    coalesce(request_model, response_model) AS model,
    credential_name,
    kind,
    mode,
    virtual_key,
    team,
    customer,
    operation = 'generate' AS requests,
    input_tokens,
    cache_read_input_tokens,
    cache_creation_input_tokens,
    output_tokens,
    reasoning_output_tokens,
    cost_nano_usd,
    cost_nano_usd IS NOT NULL AND cost_quality = 'reported' AS reported_costs,
    cost_nano_usd IS NOT NULL AND cost_quality = 'priced' AS priced_costs,
    cost_nano_usd IS NOT NULL AND cost_quality = 'estimated' AS estimated_costs,
    cost_nano_usd IS NOT NULL AND cost_quality = 'unknown' AS doubtful_costs,
    -- What a provider refused, with an HTTP error and no tokens, was billed by nobody.
    cost_nano_usd IS NULL AND operation = 'generate' AND NOT (
        coalesce(http_status >= 400, 0)
        AND coalesce(input_tokens, output_tokens, reasoning_output_tokens,
                     input_audio_tokens, output_audio_tokens) IS NULL
    ) AS missing_costs
FROM exchanges
WHERE status <> 'denied';
CREATE TRIGGER usage_change INSTEAD OF INSERT ON usage_changes BEGIN
    INSERT INTO usage_groups (
        identity, provider_name, model, credential_name, kind, mode, virtual_key, team, customer
    )
    SELECT
        json_array(
            provider_name, model, credential_name, kind, mode, virtual_key, team, customer),
        provider_name, model, credential_name, kind, mode, virtual_key, team, customer
    FROM measured_exchanges WHERE id = new.exchange_id
    ON CONFLICT DO NOTHING;

    INSERT INTO usage_sums (
        width_us, group_id, started_at_us, exchanges, requests, input_tokens, known_input_tokens,
        cache_read_input_tokens, known_cache_read_input_tokens, cache_creation_input_tokens,
        known_cache_creation_input_tokens, output_tokens, known_output_tokens,
        reasoning_output_tokens, known_reasoning_output_tokens, cost_nano_usd,
        known_cost_nano_usd, reported_costs, priced_costs, estimated_costs, doubtful_costs,
        missing_costs
    )
    SELECT
        widths.us, groups.id, started_at_us - started_at_us % widths.us,
        new.sign, new.sign * requests, new.sign * coalesce(input_tokens, 0),
        new.sign * (input_tokens IS NOT NULL), new.sign * coalesce(cache_read_input_tokens, 0),
        new.sign * (cache_read_input_tokens IS NOT NULL),
        new.sign * coalesce(cache_creation_input_tokens, 0),
        new.sign * (cache_creation_input_tokens IS NOT NULL),
        new.sign * coalesce(output_tokens, 0), new.sign * (output_tokens IS NOT NULL),
        new.sign * coalesce(reasoning_output_tokens, 0),
        new.sign * (reasoning_output_tokens IS NOT NULL), new.sign * coalesce(cost_nano_usd, 0),
        new.sign * (cost_nano_usd IS NOT NULL), new.sign * reported_costs,
        new.sign * priced_costs, new.sign * estimated_costs, new.sign * doubtful_costs,
        new.sign * missing_costs
    FROM measured_exchanges AS measured
    CROSS JOIN (SELECT 900000000 AS us UNION ALL SELECT 86400000000) AS widths
    CROSS JOIN (
        SELECT 0 AS id
        UNION ALL
        SELECT usage_groups.id FROM measured_exchanges AS chosen JOIN usage_groups
            ON identity = json_array(
                chosen.provider_name, chosen.model, chosen.credential_name, chosen.kind, chosen.mode,
                chosen.virtual_key, chosen.team, chosen.customer)
        WHERE chosen.id = new.exchange_id
    ) AS groups
    WHERE measured.id = new.exchange_id
    -- A sum beyond 64 bits stays at the largest number: a row is never refused for it.
    ON CONFLICT DO UPDATE SET
        exchanges = exchanges + excluded.exchanges,
        requests = requests + excluded.requests,
        input_tokens =
            CAST(input_tokens + excluded.input_tokens AS INTEGER),
        known_input_tokens = known_input_tokens + excluded.known_input_tokens,
        cache_read_input_tokens =
            CAST(cache_read_input_tokens + excluded.cache_read_input_tokens AS INTEGER),
        known_cache_read_input_tokens =
            known_cache_read_input_tokens + excluded.known_cache_read_input_tokens,
        cache_creation_input_tokens =
            CAST(cache_creation_input_tokens + excluded.cache_creation_input_tokens AS INTEGER),
        known_cache_creation_input_tokens =
            known_cache_creation_input_tokens + excluded.known_cache_creation_input_tokens,
        output_tokens =
            CAST(output_tokens + excluded.output_tokens AS INTEGER),
        known_output_tokens = known_output_tokens + excluded.known_output_tokens,
        reasoning_output_tokens =
            CAST(reasoning_output_tokens + excluded.reasoning_output_tokens AS INTEGER),
        known_reasoning_output_tokens =
            known_reasoning_output_tokens + excluded.known_reasoning_output_tokens,
        cost_nano_usd =
            CAST(cost_nano_usd + excluded.cost_nano_usd AS INTEGER),
        known_cost_nano_usd = known_cost_nano_usd + excluded.known_cost_nano_usd,
        reported_costs = reported_costs + excluded.reported_costs,
        priced_costs = priced_costs + excluded.priced_costs,
        estimated_costs = estimated_costs + excluded.estimated_costs,
        doubtful_costs = doubtful_costs + excluded.doubtful_costs,
        missing_costs = missing_costs + excluded.missing_costs;
END;
COMMIT;
