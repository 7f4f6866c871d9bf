//! Things that must not be used twice: proofs, client assertions, code challenges.
//!
//! Each is remembered by its hash for as long as it could be used again. The database's unique key
//! decides who was first, on any number of replicas. This process's cache only saves questions
//! whose answer is known.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use genkan_protocol::oauth::dpop::Proof;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use crate::base::{ByteCache, CacheSize, Clock, Timestamp};
use crate::db::{Db, Result, Tx};
use crate::oauth::sql::seen;

/// Remembers what was used. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::oauth) struct UsedOnce {
    memory: ByteCache<String, Timestamp>,
    queue: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    hash: String,
    until: Timestamp,
    answer: oneshot::Sender<bool>,
}

/// A single-use value, by what makes it unique.
#[derive(Clone, Copy, Debug)]
pub(in crate::oauth) enum OneTimeUse<'a> {
    Proof(&'a Proof),
    Assertion { client_id: &'a str, jti: &'a str },
    Challenge(&'a str),
}

impl OneTimeUse<'_> {
    fn hash(self) -> String {
        let (kind, one, other) = match self {
            Self::Proof(proof) => ("proof", proof.jkt.as_str(), &*proof.jti),
            Self::Assertion { client_id, jti } => ("assertion", client_id, jti),
            Self::Challenge(challenge) => ("challenge", challenge, ""),
        };
        // The zero bytes separate the parts, so that "ab" and "c" differ from "a" and "bc".
        let digest = Sha256::new()
            .chain_update(kind)
            .chain_update([0])
            .chain_update(one)
            .chain_update([0])
            .chain_update(other)
            .finalize();
        URL_SAFE_NO_PAD.encode(digest)
    }
}

impl UsedOnce {
    /// Starts the task that asks the database. Must be called on the control runtime.
    pub(in crate::oauth) fn new(db: Db, clock: Clock) -> Self {
        let (queue, questions) = mpsc::channel(WAITING);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(answer(db, clock, questions));
        }
        Self { memory: SIZE.build(), queue }
    }

    /// Whether this is the first use, as part of `tx`. Nothing counts unless that transaction
    /// commits.
    pub(in crate::oauth) async fn is_first(
        &self,
        tx: &mut Tx,
        used: OneTimeUse<'_>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool> {
        seen::insert(tx, &used.hash(), until, now).await
    }

    /// Whether a proof is used for the first time, for requests that write nothing else. Many at
    /// once share a transaction. Returns `None` if the database did not answer.
    pub(in crate::oauth) async fn is_first_proof(&self, proof: &Proof, now: Timestamp) -> Option<bool> {
        let (hash, until) = (OneTimeUse::Proof(proof).hash(), now.plus(PROOF));
        if self.memory.get(&hash).is_some_and(|until| until > now) {
            return Some(false);
        }
        let (answer, heard) = oneshot::channel();
        self.queue.send(Question { hash: hash.clone(), until, answer }).await.ok()?;
        let first = heard.await.ok()?;
        // Cached for a replay too: the next replay is then refused without asking the database.
        self.memory.insert(hash, until);
        Some(first)
    }
}

/// Answers in batches: each has the questions that arrived while the last batch was written.
async fn answer(db: Db, clock: Clock, mut questions: mpsc::Receiver<Question>) {
    let mut batch = Vec::with_capacity(BATCH);
    while questions.recv_many(&mut batch, BATCH).await > 0 {
        match write(&db, clock.now(), &batch).await {
            Ok(firsts) => {
                for (question, first) in batch.drain(..).zip(firsts) {
                    let _ = question.answer.send(first);
                }
            }
            // Dropping the questions tells their callers that there is no answer.
            Err(cause) => {
                tracing::warn!(cause = &cause as &dyn std::error::Error, "proofs could not be remembered");
                batch.clear();
            }
        }
    }
}

/// Decides which questions are first. Of two equal ones in a batch, the earlier is.
async fn write(db: &Db, now: Timestamp, batch: &[Question]) -> Result<Vec<bool>> {
    let mut hashes: Vec<&str> = batch.iter().map(|question| question.hash.as_str()).collect();
    // The same order on all replicas, so that their statements do not wait for each other's rows.
    hashes.sort_unstable();
    hashes.dedup();
    // One expiry for the whole statement. Some proofs are remembered a little longer, which does no
    // harm.
    let until = batch.iter().map(|question| question.until).max().unwrap_or(now);
    let mut new = seen::insert_all(db, &hashes, until, now).await?;
    // Each hash can be removed once, so of equal proofs in one batch only the first gets `true`.
    Ok(batch.iter().map(|question| new.remove(&question.hash)).collect())
}

/// A proof's nonce is valid for less than three intervals of a minute, so the proof is useless
/// afterwards.
pub(in crate::oauth) const PROOF: Duration = Duration::from_mins(5);
/// The time within which a code challenge may be redeemed only once.
pub(in crate::oauth) const CHALLENGE: Duration = Duration::from_hours(24);
/// Some 200 000 proofs.
const SIZE: CacheSize = CacheSize { name: "used_proofs", bytes: 40 << 20, typical: 200 };
const WAITING: usize = 4096;
const BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(of_many_at_once_one_proof_is_first);

    fn proof(jti: &str) -> Proof {
        Proof {
            jkt: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().unwrap(),
            jti: jti.to_owned(),
            iat: 0,
        }
    }

    async fn of_many_at_once_one_proof_is_first(db: Db) {
        let now = Timestamp::from_seconds(1_000_000);
        let clock = crate::base::ManualClock::at(now).clock();
        // Two replicas.
        let both = [UsedOnce::new(db.clone(), clock.clone()), UsedOnce::new(db.clone(), clock.clone())];
        let asked = (0..40).map(|index| {
            let seen = both[index % 2].clone();
            async move { seen.is_first_proof(&proof(&format!("proof {}", index / 8)), now).await.unwrap() }
        });
        let firsts = futures_util::future::join_all(asked).await.into_iter().filter(|first| *first).count();
        assert_eq!(firsts, 5);
        let mut tx = db.begin().await.unwrap();
        let until = now.plus(PROOF);
        assert!(!both[0].is_first(&mut tx, OneTimeUse::Proof(&proof("proof 0")), until, now).await.unwrap());
        let same_words = OneTimeUse::Assertion {
            client_id: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            jti: "proof 0",
        };
        assert!(both[0].is_first(&mut tx, same_words, until, now).await.unwrap());
        tx.commit().await.unwrap();
    }
}
