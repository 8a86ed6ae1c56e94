-- What estimates of tokens came to in answers whose counts the provider told: sums, to correct others by.
CREATE TABLE token_ratios (
    provider_name    TEXT NOT NULL,
    model            TEXT NOT NULL,    -- as it was asked for
    kind             TEXT NOT NULL,    -- what was estimated from what: input_size | output_text | output_size
    estimated_tokens INTEGER NOT NULL,
    reported_tokens  INTEGER NOT NULL,
    answers          INTEGER NOT NULL,
    PRIMARY KEY (provider_name, model, kind)
) STRICT, WITHOUT ROWID;
