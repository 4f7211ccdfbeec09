ALTER TABLE entries
    ADD COLUMN place text NOT NULL DEFAULT '' CHECK (char_length(place) <= 60);
