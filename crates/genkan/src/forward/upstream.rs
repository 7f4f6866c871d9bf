//! One host, or one PDS elsewhere, seen from one edge thread: its spare connections, what is under way, its breaker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::answer_head::Keep;
use super::breaker::{Breaker, Breakers};
use super::dial::Dialler;
use super::error::{Cause, Error};
use super::limits::Limits;
use super::link::Link;
use super::vigil::Vigil;
use crate::base::Origin;
use crate::fleet::{Host, HostId};

/// The hosts that this thread has connections to.
#[derive(Debug)]
pub(super) struct Upstreams {
    by_host: RefCell<HashMap<HostId, Rc<Upstream>>>,
    /// PDSes that are not ours, as long as they are in use.
    elsewhere: RefCell<HashMap<Origin, Rc<Upstream>>>,
    breakers: Breakers,
    dialler: Dialler,
    limits: Rc<Limits>,
    limits_elsewhere: Rc<Limits>,
    vigil: Rc<Vigil>,
}

impl Upstreams {
    pub(super) fn new(
        breakers: Breakers,
        dialler: Dialler,
        limits: Rc<Limits>,
        at_once_elsewhere: usize,
        vigil: Rc<Vigil>,
    ) -> Self {
        let limits_elsewhere =
            Rc::new(Limits { at_once: at_once_elsewhere, spare: SPARE_ELSEWHERE, ..(*limits).clone() });
        Self {
            by_host: RefCell::default(),
            elsewhere: RefCell::default(),
            breakers,
            dialler,
            limits,
            limits_elsewhere,
            vigil,
        }
    }

    /// The host's connections; anew if its origin has changed since.
    pub(super) fn of(&self, host: &Host) -> Rc<Upstream> {
        let mut by_host = self.by_host.borrow_mut();
        if let Some(known) = by_host.get(&host.id)
            && known.origin == host.origin
        {
            return Rc::clone(known);
        }
        let fresh = Rc::new(Upstream {
            origin: host.origin.clone(),
            addresses: None,
            authority: authority(&host.origin),
            breaker: self.breakers.of(&host.id),
            dialler: self.dialler.clone(),
            limits: Rc::clone(&self.limits),
            vigil: Rc::clone(&self.vigil),
            spare: RefCell::default(),
            under_way: Cell::new(0),
            used_at: Cell::new(self.vigil.now()),
        });
        by_host.insert(host.id.clone(), Rc::clone(&fresh));
        fresh
    }

    /// The connections to a PDS that is not ours, at these addresses and no others; anew if they have changed.
    pub(super) fn elsewhere(
        &self,
        origin: &Origin,
        addresses: &Arc<[IpAddr]>,
    ) -> Result<Rc<Upstream>, Error> {
        let mut elsewhere = self.elsewhere.borrow_mut();
        if let Some(known) = elsewhere.get(origin)
            && known.addresses.as_ref() == Some(addresses)
        {
            known.used_at.set(self.vigil.now());
            return Ok(Rc::clone(known));
        }
        if elsewhere.len() >= MOST_ELSEWHERE && !elsewhere.contains_key(origin) {
            let idle = elsewhere.iter().filter(|(_, upstream)| upstream.under_way.get() == 0);
            let longest =
                idle.min_by_key(|(_, upstream)| upstream.used_at.get()).map(|(origin, _)| origin.clone());
            elsewhere.remove(&longest.ok_or(Error::Crowded)?);
        }
        let fresh = Rc::new(Upstream {
            origin: origin.clone(),
            addresses: Some(Arc::clone(addresses)),
            authority: authority(origin),
            breaker: self.breakers.another(),
            dialler: self.dialler.clone(),
            limits: Rc::clone(&self.limits_elsewhere),
            vigil: Rc::clone(&self.vigil),
            spare: RefCell::default(),
            under_way: Cell::new(0),
            used_at: Cell::new(self.vigil.now()),
        });
        elsewhere.insert(origin.clone(), Rc::clone(&fresh));
        Ok(fresh)
    }

    /// Closes spare connections that are old or that their host has closed.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        for upstream in self.by_host.borrow().values() {
            upstream.close_spares(now);
        }
        self.elsewhere.borrow_mut().retain(|_, upstream| {
            upstream.close_spares(now);
            upstream.under_way.get() > 0 || now.duration_since(upstream.used_at.get()) < FORGET_AFTER
        });
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Upstream {
    origin: Origin,
    /// Of a PDS that is not ours: where it may be connected to.
    addresses: Option<Arc<[IpAddr]>>,
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
    /// When it was last asked for, if it is not ours.
    used_at: Cell<Instant>,
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

    /// Takes an answer's status as a sign of how its host is. What a PDS elsewhere answers is its own business and
    /// passes as it is: only where no answer comes, it is in trouble.
    pub(super) fn judge(&self, status: StatusCode) {
        match status {
            _ if self.addresses.is_some() => self.breaker.succeeded(),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                self.breaker.failed(Instant::now());
            }
            _ => self.breaker.succeeded(),
        }
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
        let limit = self.limits.connect;
        let wire = match &self.addresses {
            None => self.dialler.dial(&self.origin, limit).await?,
            Some(addresses) => self.dialler.dial_checked(&self.origin, addresses, limit).await?,
        };
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

    fn close_spares(&self, now: Instant) {
        self.spare.borrow_mut().retain_mut(|link| link.keep_until > now && link.settles());
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

fn authority(origin: &Origin) -> HeaderValue {
    HeaderValue::from_str(origin.authority().as_str())
        .expect("an authority is made of characters that a header may have")
}

/// PDSes that are not ours and that one thread has connections to.
const MOST_ELSEWHERE: usize = 1024;
/// Connections to one of them kept for later, by one edge thread.
const SPARE_ELSEWHERE: usize = 16;
/// One that nobody has asked for in this time is forgotten, and its breaker with it.
const FORGET_AFTER: std::time::Duration = std::time::Duration::from_mins(1);
