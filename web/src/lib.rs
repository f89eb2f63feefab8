//! What the page asks of the library: the adapter, attention on a sentence, verification, times.
//!
//! Everything that waits is awaited, so the worker that it runs in never stands still. Texts are JSON.

mod bench;
mod check;
mod see;

use std::cell::RefCell;
use std::rc::Rc;

use heedful::bench::Roofline;
use heedful::verify::report::{Adapter, CaseResult, Host, Left};
use heedful::{Engine, Error, Policy};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::{JsError, wasm_bindgen};

use check::Check;
use see::{Sentence, Settings};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(text: &str);
    /// Milliseconds, of a clock that workers have too.
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
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
    /// None after a device has failed: the next use opens another.
    engine: RefCell<Option<Rc<Engine>>>,
    adapter: Adapter,
    host: Host,
    check: RefCell<Option<Check>>,
    roofline: RefCell<Option<Roofline>>,
}

/// What calls are held against, and the calls.
#[derive(Serialize)]
struct Limits<'a> {
    roofline: &'a Roofline,
    calls: Vec<&'static str>,
}

/// A map of weights as the page draws it.
#[derive(Serialize)]
struct Map<'a> {
    words: &'a [String],
    /// Words of the sentence; a map has room for the first.
    of: usize,
    heads: u32,
    /// `[heads, words, words]`; `null` where a score is −∞: a key that is hidden.
    weights: Vec<Option<f64>>,
    plan: String,
    call: String,
    /// From the tensors on this side to the weights on this side, after kernels were compiled.
    milliseconds: f64,
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
        let engine = RefCell::new(Some(Rc::new(engine)));
        let (check, roofline) = (RefCell::default(), RefCell::default());
        Ok(Self { engine, adapter, host, check, roofline })
    }

    /// The adapter as reports have it.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn adapter(&self) -> Answer<String> {
        json(&self.adapter)
    }

    /// Attends to a sentence, as the settings say. A device that was lost meanwhile is replaced.
    ///
    /// # Errors
    /// What the library says of the call; there is no device any more.
    pub async fn see(&self, settings: &str) -> Answer<String> {
        let settings: Settings =
            serde_json::from_str(settings).map_err(|e| JsError::new(&e.to_string()))?;
        let sentence = Sentence::new(&settings).map_err(told)?;
        let engine = self.engine().await?;
        let seen = match seen(&engine, &sentence).await {
            Err(lost) if lost.is_device_lost() => {
                self.replace_later();
                let engine = self.engine().await?;
                self.kept(seen(&engine, &sentence).await)
            }
            seen => self.kept(seen),
        };
        json(&seen.map_err(told)?)
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

    /// Runs a case of the grid: its rows. A device that fails in one path is replaced before the next, and where that
    /// cannot be, the rows say which paths were not run.
    ///
    /// # Errors
    /// No grid was begun, there is no such case, or there is no device to begin it on.
    pub async fn check(&self, place: usize) -> Answer<String> {
        let mut engine = self.engine().await?;
        let mut running = match &*self.check.borrow() {
            Some(check) => check.case(place).map_err(told)?,
            None => return Err(JsError::new("nothing is being verified")),
        };
        let mut rows = Vec::new();
        while running.more() {
            let (row, left) = running.row(&engine, &self.adapter).await.map_err(told)?;
            // In the report at once: whatever comes after it, it was seen.
            self.add(&row);
            rows.push(row);
            if left == Left::Sound {
                continue;
            }
            self.replace_later();
            if running.more() {
                match self.engine().await {
                    Ok(another) => engine = another,
                    Err(_) => {
                        let rest = running.not_run("the browser gave no other device");
                        rest.iter().for_each(|row| self.add(row));
                        rows.extend(rest);
                    }
                }
            }
        }
        json(&rows)
    }

    /// Measures what the device can do: multiply-adds, memory, dispatches; with the calls that can be timed.
    ///
    /// # Errors
    /// The device is lost, or there is none.
    pub async fn measure(&self) -> Answer<String> {
        let engine = self.engine().await?;
        let measured = self.kept(Roofline::measure_async(&engine).await);
        let roofline = measured.map_err(told)?;
        *self.roofline.borrow_mut() = Some(roofline);
        let calls = bench::calls(&self.adapter).iter().map(bench::Timed::title).collect();
        json(&Limits { roofline: &roofline, calls })
    }

    /// Times one of the calls.
    ///
    /// # Errors
    /// Nothing was measured, there is no such call, the device is lost, or there is none.
    pub async fn time(&self, place: usize) -> Answer<String> {
        let roofline = *self.roofline.borrow();
        let roofline = roofline.ok_or_else(|| JsError::new("the device was not measured"))?;
        let call = bench::calls(&self.adapter).into_iter().nth(place);
        let call = call.ok_or_else(|| JsError::new("there is no such call"))?;
        let engine = self.engine().await?;
        let row = self.kept(call.row(&engine, &roofline).await);
        json(&row.map_err(told)?)
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

    fn add(&self, row: &CaseResult) {
        if let Some(check) = &mut *self.check.borrow_mut() {
            check.add(row);
        }
    }

    /// The device that is there, or another where that one has failed.
    async fn engine(&self) -> Answer<Rc<Engine>> {
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
    fn replace_later(&self) {
        *self.engine.borrow_mut() = None;
    }

    /// What came of a call. Its own mistakes leave the device as it was, anything else does not.
    fn kept<T>(&self, came: heedful::Result<T>) -> heedful::Result<T> {
        if came.as_ref().is_err_and(|e| !e.is_invalid() && !e.is_unsupported()) {
            self.replace_later();
        }
        came
    }

    fn report(&self, text: impl FnOnce(&Check) -> heedful::Result<String>) -> Answer<String> {
        match &*self.check.borrow() {
            Some(check) => text(check).map_err(told),
            None => Err(JsError::new("nothing was verified")),
        }
    }
}

/// The map of a sentence.
async fn seen<'a>(engine: &Engine, sentence: &'a Sentence) -> heedful::Result<Map<'a>> {
    let call = &sentence.attention;
    // Compiles every kernel too, so that the time is that of the run.
    let plans = engine.warm(std::slice::from_ref(call), &Policy::default()).await;
    let none = || Error::internal("a map of weights", "no plan");
    let plan = plans.into_iter().next().ok_or_else(none)??;
    let start = now();
    let outputs = engine.run_host_async(&plan, &sentence.inputs()).await?;
    let milliseconds = now() - start;
    let written = serde_json::to_string(call);
    Ok(Map {
        words: &sentence.words,
        of: sentence.of,
        heads: call.shape.heads_q,
        weights: sentence.shown(outputs.weights)?,
        plan: plan.to_string(),
        call: written.map_err(|e| Error::internal("a call as JSON", e.to_string()))?,
        milliseconds,
    })
}

/// A device, on an adapter of its own: a browser's adapter gives one only.
async fn open() -> Answer<(Engine, Adapter)> {
    let adapters = Engine::adapters().await;
    let adapter = adapters.first().ok_or_else(|| JsError::new("the browser gives no adapter"))?;
    let engine = Engine::with_adapter(adapter).await.map_err(told)?;
    let adapter = Adapter::describe(adapter, engine.capabilities());
    Ok((engine, adapter))
}
