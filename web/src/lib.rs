//! What the page asks of the library: attention on a sentence, verification, times.
//!
//! Two modules are made of it, a feature each. The page opens with [`see`]; [`check`], which holds the cases, the
//! reference and the bench besides, is more than half as large again and is loaded when somebody asks for it.
//!
//! Everything that waits is awaited, so the worker that it runs in never stands still. Texts are JSON.

mod device;

#[cfg(feature = "check")]
mod bench;
#[cfg(feature = "check")]
mod cases;
#[cfg(feature = "check")]
pub mod check;

#[cfg(feature = "see")]
pub mod see;
#[cfg(feature = "see")]
mod sentence;

use heedful::Error;
use serde::Serialize;
use wasm_bindgen::prelude::JsError;

type Answer<T> = Result<T, JsError>;

/// An error of the library with all that it says.
fn told(error: Error) -> JsError {
    JsError::new(&error.to_string())
}

fn json(value: &impl Serialize) -> Answer<String> {
    serde_json::to_string(value).map_err(|e| JsError::new(&e.to_string()))
}
