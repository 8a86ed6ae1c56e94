ALTER TABLE conversations ADD COLUMN directory TEXT; -- where the agent worked in it

ALTER TABLE exchanges ADD COLUMN prompt_id TEXT; -- the agent's id of the message the user typed
ALTER TABLE exchanges ADD COLUMN mode TEXT; -- the agent's mode of that turn: `plan`, `build`
ALTER TABLE exchanges ADD COLUMN tool_set TEXT; -- hash of the tools offered: `tool_sets.hash`
ALTER TABLE exchanges ADD COLUMN tools_called TEXT; -- names of the tools called, a JSON list; null if none
ALTER TABLE exchanges ADD COLUMN gateway_us INTEGER; -- the gateway's own time
ALTER TABLE exchanges ADD COLUMN priced_cost_nano_usd INTEGER; -- what the price book says, also beside a reported cost
ALTER TABLE exchanges ADD COLUMN superseded_cost_nano_usd INTEGER; -- the amount first counted, where it was priced anew since
ALTER TABLE exchanges ADD COLUMN superseded_price_source TEXT; -- what priced that amount: `none` if nothing did; null if never priced anew

-- What a request was made of, without its text. Apart from the row because it is long and goes first.
CREATE TABLE message_parts (
    started_at_us INTEGER NOT NULL, -- the exchange's
    exchange_id   TEXT NOT NULL,    -- its id
    parts         BLOB NOT NULL     -- 12 bytes a part: 8 of a keyed hash, 4 of length; tools, system, then each message
) STRICT;

CREATE UNIQUE INDEX message_parts_exchange ON message_parts (started_at_us, exchange_id);

-- The tools offered together in some request.
CREATE TABLE tool_sets (
    hash         TEXT NOT NULL,    -- of the whole set
    tool_name    TEXT NOT NULL,
    schema_bytes INTEGER NOT NULL, -- size of the tool's definition as it was sent
    PRIMARY KEY (hash, tool_name)
) STRICT, WITHOUT ROWID;

-- What did not end well, for the newest of it.
CREATE INDEX exchanges_trouble ON exchanges (started_at_us) WHERE status <> 'completed';
