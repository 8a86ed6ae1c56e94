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

-- What usage is grouped by without looking at sessions: each combination once, and 0 for them all.
CREATE TABLE usage_groups (
    id              INTEGER PRIMARY KEY,
    identity        TEXT NOT NULL UNIQUE, -- the other columns as a JSON list; an empty one in group 0
    provider_name   TEXT,                 -- null only in group 0
    model           TEXT,                 -- as it was asked for, else as it answered
    credential_name TEXT,
    kind            TEXT,                 -- null only in group 0
    mode            TEXT
) STRICT;

INSERT INTO usage_groups (id, identity) VALUES (0, '[]');

-- Sums of `measured_exchanges`, by quarter of an hour (every local day is made of these) and by day
-- (of UTC). The triggers below keep them equal to the rows, whoever writes these.
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

-- Writing (id, 1) here adds an exchange to its sums, (id, -1) takes it out.
CREATE VIEW usage_changes AS SELECT NULL AS exchange_id, NULL AS sign;

CREATE TRIGGER usage_change INSTEAD OF INSERT ON usage_changes BEGIN
    INSERT INTO usage_groups (identity, provider_name, model, credential_name, kind, mode)
    SELECT json_array(provider_name, model, credential_name, kind, mode),
        provider_name, model, credential_name, kind, mode
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
                chosen.provider_name, chosen.model, chosen.credential_name, chosen.kind, chosen.mode)
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

INSERT INTO usage_changes SELECT id, 1 FROM exchanges;
