//! The device of a module: opened with the page, replaced where it has failed.

use std::cell::RefCell;
use std::rc::Rc;

use heedful::Engine;
use heedful::verify::report::{Adapter, Host};
use serde::Deserialize;
use wasm_bindgen::prelude::{JsError, wasm_bindgen};

use crate::{Answer, told};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(text: &str);
}

/// What only the page can say of the browser and its adapter.
#[derive(Debug, Deserialize)]
struct Told {
    /// The adapter's name.
    adapter: String,
    /// The browser's, and its version.
    browser: String,
    version: String,
    host: Host,
}

/// A device, and what it is.
pub(crate) struct Device {
    /// None after a device has failed: the next use opens another.
    engine: RefCell<Option<Rc<Engine>>>,
    pub(crate) adapter: Adapter,
}

impl Device {
    /// Opens the browser's best adapter, of which `about` says what only the page knows; with the machine.
    ///
    /// # Errors
    /// There is none, or it gives no device.
    pub(crate) async fn open(about: &str) -> Answer<(Self, Host)> {
        std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
        let about: Told = serde_json::from_str(about).map_err(|e| JsError::new(&e.to_string()))?;
        let (engine, mut adapter) = open().await?;
        adapter.name = about.adapter;
        (adapter.driver, adapter.driver_info) = (about.browser, about.version);
        let engine = RefCell::new(Some(Rc::new(engine)));
        Ok((Self { engine, adapter }, about.host))
    }

    /// The device that is there, or another where that one has failed.
    pub(crate) async fn engine(&self) -> Answer<Rc<Engine>> {
        let held = self.engine.borrow().clone();
        if let Some(engine) = held {
            return Ok(engine);
        }
        let (engine, _) = open().await?;
        let engine = Rc::new(engine);
        *self.engine.borrow_mut() = Some(Rc::clone(&engine));
        Ok(engine)
    }

    /// Lets a device go that has failed in something.
    pub(crate) fn replace_later(&self) {
        *self.engine.borrow_mut() = None;
    }

    /// What came of a call. Its own mistakes leave the device as it was, anything else does not.
    pub(crate) fn kept<T>(&self, came: heedful::Result<T>) -> heedful::Result<T> {
        if came.as_ref().is_err_and(|e| !e.is_invalid() && !e.is_unsupported()) {
            self.replace_later();
        }
        came
    }
}

/// A device, on an adapter of its own: a browser's adapter gives one only.
async fn open() -> Answer<(Engine, Adapter)> {
    let adapters = Engine::adapters().await;
    let adapter = adapters.first().ok_or_else(|| JsError::new("the browser gives no adapter"))?;
    let engine = Engine::with_adapter(adapter).await.map_err(told)?;
    let adapter = Adapter::describe(adapter, engine.capabilities());
    Ok((engine, adapter))
}
