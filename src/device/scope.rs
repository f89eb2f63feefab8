//! Error scopes: wgpu's asynchronous errors as results of the call that caused them.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::foreign::foreign;
use crate::error::{Error, Result};

#[cfg(not(target_arch = "wasm32"))]
type Told = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;
#[cfg(target_arch = "wasm32")]
type Told = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

/// What takes back something that was kept before it was known to be right.
#[cfg(not(target_arch = "wasm32"))]
type Undo = Box<dyn FnOnce() + Send>;
#[cfg(target_arch = "wasm32")]
type Undo = Box<dyn FnOnce()>;

/// A scope whose error is not known yet.
struct Later {
    during: String,
    bytes: u64,
    told: Told,
}

impl Later {
    /// Whether the scope has ended without an error; an error stays.
    fn told_nothing(&mut self) -> bool {
        match self.told.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(None) => true,
            Poll::Ready(error) => {
                self.told = Box::pin(std::future::ready(error));
                false
            }
            Poll::Pending => false,
        }
    }
}

thread_local! {
    static LATER: RefCell<Vec<Later>> = const { RefCell::new(Vec::new()) };
    static UNDO: RefCell<Vec<Undo>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` inside validation, out-of-memory and internal scopes, so that nothing it does can
/// reach the device's uncaptured-error handler (which panics unless the application replaced it).
///
/// The scope stack is per thread, and popped futures are ready at once on native backends, so no
/// await can come between. In a browser errors come later: [`settled`] waits for them.
pub(crate) fn scoped<T>(
    device: &wgpu::Device,
    during: &str,
    bytes: u64,
    work: impl FnOnce() -> T,
) -> Result<T> {
    let (value, result) = observed(device, during, bytes, work);
    result.map(|()| value)
}

/// [`scoped`], with the value also where there is an error.
pub(crate) fn observed<T>(
    device: &wgpu::Device,
    during: &str,
    bytes: u64,
    work: impl FnOnce() -> T,
) -> (T, Result<()>) {
    let filters = [
        wgpu::ErrorFilter::Validation,
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
    ];
    let guards = filters.map(|filter| device.push_error_scope(filter));
    let value = work();
    let mut first = None;
    // Scopes are a stack: the last pushed is popped first.
    for guard in guards.into_iter().rev() {
        first = told(during, bytes, guard.pop()).or(first);
    }
    (value, first.map_or(Ok(()), |error| Err(typed(during, bytes, error))))
}

/// Has [`settled`] take back what was kept while its scope's error is still to come.
pub(super) fn unless_right(undo: Undo) {
    UNDO.with_borrow_mut(|all| all.push(undo));
}

/// Whether some scope's error is still to come.
pub(super) fn unsettled() -> bool {
    LATER.with_borrow(|later| !later.is_empty())
}

/// Runs `work`, and waits for those of its scopes whose errors come later.
pub(crate) async fn settled<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut result = work();
    let (later, undo) = (LATER.take(), UNDO.take());
    if result.is_ok() {
        for scope in later {
            let told = scope.told.await;
            if let (Some(error), true) = (told, result.is_ok()) {
                result = Err(typed(&scope.during, scope.bytes, error));
            }
        }
    }
    if result.is_err() {
        undo.into_iter().for_each(|undo| undo());
    }
    result
}

/// The error of a scope, if it is known already; otherwise it is put aside for [`settled`].
fn told(
    during: &str,
    bytes: u64,
    #[cfg(not(target_arch = "wasm32"))] popped: impl Future<Output = Option<wgpu::Error>>
    + Send
    + 'static,
    #[cfg(target_arch = "wasm32")] popped: impl Future<Output = Option<wgpu::Error>> + 'static,
) -> Option<wgpu::Error> {
    let mut told: Told = Box::pin(popped);
    match told.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(error) => error,
        Poll::Pending => {
            LATER.with_borrow_mut(|later| {
                // Calls that nobody awaits leave theirs: those without an error need not stay.
                later.retain_mut(|scope| !scope.told_nothing());
                later.push(Later { during: during.to_owned(), bytes, told });
            });
            None
        }
    }
}

fn typed(during: &str, bytes: u64, error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::out_of_memory(during, bytes),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            if description.contains("device is lost")
                || description.contains("Parent device is lost")
            {
                return Error::device_lost(during, description);
            }
            foreign(&description).unwrap_or_else(|| Error::internal(during, description))
        }
    }
}

/// The value of a future that is ready at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_intrusive::channel::shared::oneshot_channel;

    fn validation(text: &str) -> wgpu::Error {
        let source = Box::from(text);
        wgpu::Error::Validation { source, description: text.to_owned() }
    }

    /// What a browser does: scopes pop into futures that are not ready.
    #[test]
    fn errors_that_come_later_reach_the_call_that_waits() {
        let (sender, receiver) = oneshot_channel();
        let work = || {
            let popped = async move { receiver.receive().await.flatten() };
            assert!(told("binding", 0, popped).is_none(), "not known yet");
            assert!(told("binding", 0, async { None }).is_none());
            Ok(7)
        };
        let mut waiting = Box::pin(settled(work));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let _ = sender.send(Some(validation("no such thing")));
        let Poll::Ready(Err(error)) = waiting.as_mut().poll(&mut context) else {
            panic!("the scope's error is the call's");
        };
        assert!(error.is_internal() && error.to_string().contains("no such thing"), "{error}");
        // The next call has nothing of it.
        assert_eq!(now(settled(|| Ok(1))).expect("ready").expect("right"), 1);
    }

    /// What was made before its error was known is not kept.
    #[test]
    fn what_turns_out_wrong_is_taken_back() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};

        let undone = Arc::new(AtomicUsize::new(0));
        let call = |error: Option<wgpu::Error>| {
            let (sender, receiver) = oneshot_channel();
            let count = Arc::clone(&undone);
            let mut waiting = Box::pin(settled(move || {
                told("compiling", 0, async move { receiver.receive().await.flatten() });
                assert!(unsettled());
                unless_right(Box::new(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                }));
                Ok(())
            }));
            let mut context = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut context).is_pending());
            let _ = sender.send(error);
            assert!(!matches!(waiting.as_mut().poll(&mut context), Poll::Pending));
        };
        call(None);
        assert_eq!(undone.load(Ordering::Relaxed), 0);
        call(Some(validation("no such kernel")));
        assert_eq!(undone.load(Ordering::Relaxed), 1);
    }

    /// Calls that nobody awaits leave nothing behind but their errors, for the next that is.
    #[test]
    fn scopes_that_end_well_are_forgotten() {
        let late = |error: Option<wgpu::Error>| {
            let mut first = true;
            let mut error = Some(error);
            std::future::poll_fn(move |_| {
                if std::mem::take(&mut first) {
                    Poll::Pending
                } else {
                    Poll::Ready(error.take().flatten())
                }
            })
        };
        for _ in 0..1000 {
            told("appending", 0, late(None));
        }
        told("appending", 0, late(Some(validation("out of room"))));
        for _ in 0..1000 {
            told("appending", 0, late(None));
        }
        assert!(LATER.with_borrow(Vec::len) <= 2);
        let error =
            now(settled(|| Ok(()))).expect("ready").expect_err("the error of a call before");
        assert!(error.to_string().contains("out of room"), "{error}");
    }

    #[test]
    fn a_calls_own_error_comes_before_those_of_its_scopes() {
        let work = || {
            told("binding", 0, async { std::future::pending().await });
            Err::<(), _>(Error::invalid("q", "nothing", "something"))
        };
        // It does not wait for a scope that never tells.
        let error = now(settled(work)).expect("ready").expect_err("an error");
        assert!(error.is_invalid(), "{error}");
    }
}
