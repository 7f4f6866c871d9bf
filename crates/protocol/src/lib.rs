//! What the AT Protocol specifications define. Pure: no I/O, no clock, no async.
