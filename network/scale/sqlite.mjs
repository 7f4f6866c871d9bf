// Runs a file of SQL on a SQLite database: `node scale/sqlite.mjs <statements.sql> <database>`.

import fs from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

const [, , statements, file] = process.argv
const database = new DatabaseSync(file)
database.exec('PRAGMA synchronous = off; PRAGMA cache_size = -400000; PRAGMA temp_store = memory')
database.exec(fs.readFileSync(statements, 'utf8'))
database.exec('PRAGMA wal_checkpoint(truncate)')
database.close()
