ALTER TABLE exchanges ADD COLUMN virtual_key TEXT; -- the name of the key of this gateway that asked
ALTER TABLE exchanges ADD COLUMN team TEXT; -- the team the virtual key belonged to then
ALTER TABLE exchanges ADD COLUMN customer TEXT; -- the customer the team belonged to then
ALTER TABLE exchanges ADD COLUMN reserved_cost_nano_usd INTEGER; -- its worst case, reserved before it was sent; null without a hard budget in money
ALTER TABLE exchanges ADD COLUMN output_limit_tokens INTEGER; -- what the request's output limit was lowered to; null if it was not
ALTER TABLE exchanges ADD COLUMN downgraded_from TEXT; -- the model that was asked for, where a rule put a cheaper one in its place
ALTER TABLE exchanges ADD COLUMN decisions TEXT; -- what rules had to say, a JSON list; null if nothing

-- The rules of each owner.
CREATE TABLE policy_documents (
    kind     TEXT NOT NULL, -- session | user | vkey | team | customer
    name     TEXT NOT NULL,
    document TEXT NOT NULL, -- JSON
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- One row: how often the rules were changed.
CREATE TABLE policy_revisions (
    id       INTEGER PRIMARY KEY CHECK (id = 0),
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO policy_revisions (id, revision) VALUES (0, 0);

-- What was spent of a budget in each window in which it was used.
CREATE TABLE budget_windows (
    budget_id       TEXT NOT NULL,    -- `team:core/month/usd`
    window_start_us INTEGER NOT NULL, -- UTC microseconds; 0 for a window that never begins anew
    spent           INTEGER NOT NULL, -- nano-dollars or tokens
    PRIMARY KEY (budget_id, window_start_us)
) STRICT, WITHOUT ROWID;

-- What a running gateway process holds of a budget: nobody else may spend it.
CREATE TABLE budget_leases (
    budget_id       TEXT NOT NULL,
    window_start_us INTEGER NOT NULL,
    process_id      TEXT NOT NULL,    -- the name of its journal
    amount          INTEGER NOT NULL, -- nano-dollars or tokens
    PRIMARY KEY (budget_id, window_start_us, process_id)
) STRICT, WITHOUT ROWID;

-- What each exchange was charged to its budgets; `budget_windows.spent` are the sums of it.
CREATE TABLE charges (
    exchange_id     TEXT NOT NULL,
    budget_id       TEXT NOT NULL,
    window_start_us INTEGER NOT NULL, -- the window in which it was admitted
    unit            TEXT NOT NULL,    -- usd | tokens
    reserved        INTEGER NOT NULL, -- its worst case, 0 where the budget only counts
    amount          INTEGER NOT NULL, -- nano-dollars or tokens; what was reserved, where the truth is unknown
    PRIMARY KEY (exchange_id, budget_id, window_start_us)
) STRICT, WITHOUT ROWID;

-- What was changed, refused and settled, in the order it was written. Each hash covers the one before it.
CREATE TABLE audit_events (
    seq      INTEGER PRIMARY KEY,
    at_us    INTEGER NOT NULL, -- when it was written, UTC microseconds
    kind     TEXT NOT NULL,    -- policy | exchange | refusal | break
    document TEXT NOT NULL,    -- JSON
    hash     TEXT NOT NULL     -- HMAC-SHA-256 of the event and the hash before it, hexadecimal
) STRICT;

-- One row: the last event, sealed.
CREATE TABLE audit_heads (
    id   INTEGER PRIMARY KEY CHECK (id = 0),
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL,
    seal TEXT NOT NULL -- HMAC-SHA-256 of both, hexadecimal
) STRICT;

-- Usage is grouped by virtual key, team and customer too.
DROP TRIGGER usage_change;
DROP VIEW measured_exchanges;

ALTER TABLE usage_groups ADD COLUMN virtual_key TEXT;
ALTER TABLE usage_groups ADD COLUMN team TEXT;
ALTER TABLE usage_groups ADD COLUMN customer TEXT;

UPDATE usage_groups
SET identity = json_array(provider_name, model, credential_name, kind, mode, NULL, NULL, NULL)
WHERE id > 0;

-- What each exchange adds to a total: 1 or 0 where something is counted, null where it is unknown.
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
