//! What the page asks of the library: the adapter, attention on a sentence, verification.
//!
//! Everything that waits is awaited, so the worker that it runs in never stands still. Texts are JSON.

mod check;
mod see;

use std::cell::RefCell;
use std::rc::Rc;

use heedful::verify::report::{Adapter, Host, Left};
use heedful::{Engine, Error, Policy, device};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::{JsError, wasm_bindgen};

pub use check::{Check, Running};
pub use see::{MOST_WORDS, Positions, Sentence, Settings, Weights};

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
    /// The operating system, and what is known of the processor.
    os: String,
    cpu: String,
}

/// The page's device, and what it was used for so far.
#[wasm_bindgen]
pub struct Page {
    engine: RefCell<Rc<Engine>>,
    adapter: Adapter,
    host: Host,
    check: RefCell<Option<Check>>,
}

/// A map of weights as the page draws it.
#[derive(Serialize)]
struct Map<'a> {
    words: &'a [String],
    heads: u32,
    /// `[heads, words, words]`; `null` where a score is −∞.
    weights: &'a [f64],
    plan: String,
    call: String,
}

type Answer<T> = Result<T, JsError>;

/// An error of the library with all that it says.
fn told(error: Error) -> JsError {
    JsError::new(&error.to_string())
}

fn json(value: &impl Serialize) -> Answer<String> {
    serde_json::to_string(value).map_err(|e| JsError::new(&e.to_string()))
}

#[wasm_bindgen]
impl Page {
    /// Opens the browser's best adapter.
    ///
    /// # Errors
    /// There is none, or it gives no device.
    pub async fn open(about: &str) -> Answer<Page> {
        std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
        let about: Told = serde_json::from_str(about).map_err(|e| JsError::new(&e.to_string()))?;
        let (engine, mut adapter) = open().await?;
        adapter.name = about.adapter;
        (adapter.driver, adapter.driver_info) = (about.browser, about.version);
        let host = Host { os: about.os, cpu: about.cpu };
        let engine = RefCell::new(Rc::new(engine));
        Ok(Self { engine, adapter, host, check: RefCell::default() })
    }

    /// The adapter as reports have it.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn adapter(&self) -> Answer<String> {
        json(&self.adapter)
    }

    /// Attends to a sentence, as [`Settings`] say.
    ///
    /// # Errors
    /// What the library says of the call.
    pub async fn see(&self, settings: &str) -> Answer<String> {
        let settings: Settings =
            serde_json::from_str(settings).map_err(|e| JsError::new(&e.to_string()))?;
        let sentence = Sentence::new(&settings).map_err(told)?;
        let engine = Rc::clone(&self.engine.borrow());
        let call = &sentence.attention;
        let plan = engine.plan_async(call, &Policy::default()).await.map_err(told)?;
        let outputs = engine.run_host_async(&plan, &sentence.inputs()).await.map_err(told)?;
        json(&Map {
            words: &sentence.words,
            heads: settings.heads,
            weights: outputs.weights.as_deref().unwrap_or_default(),
            plan: plan.to_string(),
            call: json(call)?,
        })
    }

    /// Begins to verify a grid, `slots` or `quick`: the names of its cases.
    ///
    /// # Errors
    /// There is no such grid.
    pub fn begin(&self, grid: &str) -> Answer<String> {
        let check = Check::new(grid, self.adapter.clone(), self.host.clone()).map_err(told)?;
        let names = json(&check.names());
        *self.check.borrow_mut() = Some(check);
        names
    }

    /// Runs a case of the grid: its rows.
    ///
    /// # Errors
    /// No grid was begun, there is no such case, or no device any more.
    pub async fn check(&self, place: usize) -> Answer<String> {
        let running = match &*self.check.borrow() {
            Some(check) => check.case(place).map_err(told)?,
            None => return Err(JsError::new("nothing is being verified")),
        };
        let engine = Rc::clone(&self.engine.borrow());
        let (rows, left) = running.rows(&engine, &self.adapter).await.map_err(told)?;
        if let Some(check) = &mut *self.check.borrow_mut() {
            check.add(&rows);
        }
        if left == Left::Doubtful {
            let (engine, _) = open().await?;
            *self.engine.borrow_mut() = Rc::new(engine);
        }
        json(&rows)
    }

    /// What was verified so far, as the page that `heedful verify --report FILE.html` writes.
    ///
    /// # Errors
    /// Nothing was.
    pub fn report_html(&self) -> Answer<String> {
        self.report(|check| check.report().to_html())
    }

    /// The same as the JSON that `heedful report` reads.
    ///
    /// # Errors
    /// Nothing was.
    pub fn report_json(&self) -> Answer<String> {
        self.report(|check| check.report().to_json())
    }

    fn report(&self, text: impl FnOnce(&Check) -> heedful::Result<String>) -> Answer<String> {
        match &*self.check.borrow() {
            Some(check) => text(check).map_err(told),
            None => Err(JsError::new("nothing was verified")),
        }
    }
}

/// A device, on an adapter of its own: a browser's adapter gives one only.
async fn open() -> Answer<(Engine, Adapter)> {
    let adapters = device::adapters().await;
    let adapter = adapters.first().ok_or_else(|| JsError::new("the browser gives no adapter"))?;
    let engine = Engine::with_adapter(adapter).await.map_err(told)?;
    let adapter = Adapter::describe(adapter, engine.capabilities());
    Ok((engine, adapter))
}
