//! A gate that servers wait at until a test opens it.

use std::sync::Arc;

use tokio::sync::watch;

/// A gate, closed at first. Clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        // `self` keeps the sender alive, so there is no error.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }

    /// Opens the gate for everyone who waits and for all who come later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gate {}
