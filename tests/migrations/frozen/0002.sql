PRAGMA application_id = 1869046132;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
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
, prompt_id TEXT, mode TEXT, tool_set TEXT, tools_called TEXT, gateway_us INTEGER, priced_cost_nano_usd INTEGER, superseded_cost_nano_usd INTEGER, superseded_price_source TEXT) STRICT;
INSERT INTO "exchanges" VALUES('01JD0000000000000000000011','01JD0000000000000000000001','ses_1',NULL,'main','generate','openai-chat','practice',NULL,'scripted','scripted',1,'completed',200,NULL,NULL,1,1795262400000000,NULL,NULL,1500000,1,20,300,4000,50,6,7,8,'reported','{"prompt_tokens":4321}',NULL,1234567,'priced','genai-prices 0.2.3',NULL,NULL,'msg_1','build','0a1b2c','["glob"]',180,1234567,NULL,'none');
INSERT INTO "exchanges" VALUES('01JD0000000000000000000012','01JD0000000000000000000002','ses_1',NULL,'main','generate','openai-chat','practice',NULL,'scripted',NULL,1,'interrupted',NULL,NULL,NULL,1,1795262400000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'unknown',NULL,NULL,NULL,'unknown',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE message_parts (
    started_at_us INTEGER NOT NULL, -- the exchange's
    exchange_id   TEXT NOT NULL,    -- its id
    parts         BLOB NOT NULL     -- 12 bytes a part: 8 of a keyed hash, 4 of length; tools, system, then each message
) STRICT;
INSERT INTO "message_parts" VALUES(1795262400000000,'01JD0000000000000000000011',X'000102030405060708090A0B');
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
CREATE TABLE tool_sets (
    hash         TEXT NOT NULL,    -- of the whole set
    tool_name    TEXT NOT NULL,
    schema_bytes INTEGER NOT NULL, -- size of the tool's definition as it was sent
    PRIMARY KEY (hash, tool_name)
) STRICT, WITHOUT ROWID;
INSERT INTO "tool_sets" VALUES('0a1b2c','glob',512);
CREATE INDEX sessions_started_at ON sessions (started_at_us);
CREATE INDEX exchanges_session ON exchanges (session_id, started_at_us);
CREATE INDEX exchanges_started_at ON exchanges (started_at_us);
CREATE UNIQUE INDEX message_parts_exchange ON message_parts (started_at_us, exchange_id);
CREATE INDEX exchanges_trouble ON exchanges (started_at_us) WHERE status <> 'completed';
COMMIT;
