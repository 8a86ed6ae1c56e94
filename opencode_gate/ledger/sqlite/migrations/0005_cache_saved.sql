ALTER TABLE exchanges ADD COLUMN cache_saved_nano_usd INTEGER; -- what the prompt cache saved by the price book, less what writing to it cost; null if unknown or not used
