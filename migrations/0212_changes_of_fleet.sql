CREATE INDEX changes_of_fleet ON changes (at) WHERE kind = 'fleet';
