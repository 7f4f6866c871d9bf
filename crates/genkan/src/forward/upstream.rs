//! One host, seen from one edge thread: its spare connections, what is under way, its breaker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use tokio::time::Instant;

use super::answer_head::Keep;
use super::breaker::{Breaker, Breakers};
use super::dial::Dialler;
use super::error::{Cause, Error};
use super::limits::Limits;
use super::link::Link;
use super::vigil::Vigil;
use crate::fleet::{Host, HostId};

/// The hosts that this thread has connections to.
#[derive(Debug)]
pub(super) struct Upstreams {
    by_host: RefCell<HashMap<HostId, Rc<Upstream>>>,
    breakers: Breakers,
    dialler: Dialler,
    limits: Rc<Limits>,
    vigil: Rc<Vigil>,
}

impl Upstreams {
    pub(super) fn new(breakers: Breakers, dialler: Dialler, limits: Rc<Limits>, vigil: Rc<Vigil>) -> Self {
        Self { by_host: RefCell::default(), breakers, dialler, limits, vigil }
    }

    /// The host's connections; anew if its origin has changed since.
    pub(super) fn of(&self, host: &Host) -> Rc<Upstream> {
        let mut by_host = self.by_host.borrow_mut();
        if let Some(known) = by_host.get(&host.id)
            && known.origin == host.origin
        {
            return Rc::clone(known);
        }
        let authority = HeaderValue::from_str(host.origin.authority().as_str())
            .expect("an authority is made of characters that a header may have");
        let fresh = Rc::new(Upstream {
            origin: host.origin.clone(),
            authority,
            breaker: self.breakers.of(&host.id),
            dialler: self.dialler.clone(),
            limits: Rc::clone(&self.limits),
            vigil: Rc::clone(&self.vigil),
            spare: RefCell::default(),
            under_way: Cell::new(0),
        });
        by_host.insert(host.id.clone(), Rc::clone(&fresh));
        fresh
    }

    /// Closes spare connections that are old or that their host has closed.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        for upstream in self.by_host.borrow().values() {
            upstream.spare.borrow_mut().retain_mut(|link| link.keep_until > now && link.settles());
        }
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Upstream {
    origin: crate::base::Origin,
    /// The `Host` header.
    pub(super) authority: HeaderValue,
    pub(super) breaker: Arc<Breaker>,
    dialler: Dialler,
    limits: Rc<Limits>,
    vigil: Rc<Vigil>,
    /// The last one used is the first one lent.
    #[expect(clippy::vec_box, reason = "a link moves between here and a request as one pointer")]
    spare: RefCell<Vec<Box<Link>>>,
    under_way: Cell<usize>,
}

/// Leave for one request at a host, until its answer has ended.
#[derive(Debug)]
pub(super) struct Permit {
    upstream: Rc<Upstream>,
}

impl Upstream {
    pub(super) fn admit(self: Rc<Self>) -> Result<Permit, Error> {
        if self.under_way.get() >= self.limits.at_once {
            return Err(Error::Crowded);
        }
        if !self.breaker.is_closed() && !self.breaker.admits(Instant::now()) {
            return Err(Error::Resting);
        }
        self.under_way.set(self.under_way.get() + 1);
        Ok(Permit { upstream: self })
    }

    /// A connection that was used before, if one is to spare.
    pub(super) fn spare(&self) -> Option<Box<Link>> {
        let mut spare = self.spare.borrow_mut();
        while let Some(mut link) = spare.pop() {
            if link.keep_until <= self.vigil.now() {
                // The others have rested for longer than this one.
                spare.clear();
            } else if link.settles() {
                return Some(link);
            }
        }
        None
    }

    /// A new connection.
    pub(super) async fn open(&self) -> Result<Box<Link>, Cause> {
        let wire = self.dialler.dial(&self.origin, self.limits.connect).await?;
        Ok(Box::new(Link::over(wire, Instant::now() + self.limits.keep)))
    }

    /// Takes a connection back, if another request may use it.
    pub(super) fn give_back(&self, mut link: Box<Link>, keep: Keep) {
        let keep = match keep {
            Keep::Not => return,
            Keep::AsLongAsWePlease => self.limits.keep,
            Keep::AtMost(time) => time.min(self.limits.keep),
        };
        let mut spare = self.spare.borrow_mut();
        if spare.len() < self.limits.spare && link.settles() {
            link.rest();
            link.keep_until = self.vigil.now() + keep;
            spare.push(link);
        }
    }

    /// Closes all that are to spare.
    pub(super) fn forget_spares(&self) {
        self.spare.borrow_mut().clear();
    }
}

impl Permit {
    pub(super) fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.upstream.under_way.set(self.upstream.under_way.get() - 1);
    }
}
