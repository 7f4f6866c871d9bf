CREATE INDEX link_logins_by_sealing_key ON link_logins (SUBSTR(sealed, 4, 8), state);
