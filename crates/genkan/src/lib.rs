//! Genkan: a front door for AT Protocol accounts.
