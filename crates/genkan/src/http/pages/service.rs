//! The service behind every page and form: the application, the theme, the browser's visit, and
//! limits.

use std::future::Future;
use std::time::Duration;

use http::StatusCode;

use super::call::Call;
use super::reply::Reply;
use super::theme::Theme;
use super::trouble::Trouble;
use crate::app::App;
use crate::base::Origin;
use crate::signin::Visit;

/// The services of the pages. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    pub(super) app: App,
    pub(super) theme: Theme,
}

impl Pages {
    pub(super) fn origin(&self) -> &Origin {
        &self.app.config.service.public_url
    }

    /// Recognises the browser of this request, or registers it.
    pub(super) async fn visit(&self, call: &Call) -> Result<Visit, Trouble> {
        let visit = self.app.sign_ins.visit(call.cookies.as_ref(), &call.seen()).await?;
        call.jar.keep(&visit);
        Ok(visit)
    }

    /// Recognises the browser of this request, if it is known.
    pub(super) async fn known_visit(&self, call: &Call) -> Result<Option<Visit>, Trouble> {
        let visit = self.app.sign_ins.peek(call.cookies.as_ref(), &call.seen()).await?;
        if let Some(visit) = &visit {
            call.jar.keep(visit);
        }
        Ok(visit)
    }

    pub(super) fn show(
        &self,
        page: &impl askama::Template,
        form_action: Option<&str>,
    ) -> Result<Reply, Trouble> {
        Reply::page(StatusCode::OK, page, self.origin(), form_action)
    }

    pub(super) fn see_other(&self, location: &str) -> Result<Reply, Trouble> {
        Reply::see_other(location, self.origin())
    }
}

/// Does `work`, and returns no sooner than after `least`, so that its duration reveals nothing.
pub(super) async fn at_least<T>(least: Duration, work: impl Future<Output = T>) -> T {
    let (done, ()) = tokio::join!(work, tokio::time::sleep(least));
    done
}

/// The least duration of sign-ins and handle checks, failed ones included.
pub(super) const LEAST: Duration = Duration::from_millis(400);
