// Runs a file of SQL on a SQLite database: `node scale/sqlite.mjs <statements.sql> <database> [print]`.
// With `print` the file is one query, whose rows are printed with | between the columns.

import fs from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

const [, , statements, file, print] = process.argv
const database = new DatabaseSync(file)
database.exec('PRAGMA synchronous = off; PRAGMA cache_size = -400000; PRAGMA temp_store = memory')
const sql = fs.readFileSync(statements, 'utf8')
if (print) for (const row of database.prepare(sql).all()) console.log(Object.values(row).join('|'))
else database.exec(sql)
database.exec('PRAGMA wal_checkpoint(truncate)')
database.close()
