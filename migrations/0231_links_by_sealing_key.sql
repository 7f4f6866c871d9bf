-- The sealing key of each sealed value is part of its text.
CREATE INDEX links_by_sealing_key ON links (SUBSTR(sealed, 4, 8), id);
