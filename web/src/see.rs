//! See: attention on a sentence, drawn anew whenever something is changed.

use heedful::{Engine, Error, Policy};
use serde::Serialize;
use wasm_bindgen::prelude::{JsError, wasm_bindgen};

use crate::device::Device;
use crate::sentence::{Sentence, Settings};
use crate::{Answer, json, told};

#[wasm_bindgen]
extern "C" {
    /// Milliseconds, of a clock that workers have too.
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
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

/// What the page opens with.
#[wasm_bindgen]
pub struct See {
    device: Device,
}

#[wasm_bindgen]
impl See {
    /// Opens the browser's best adapter; `about` is what the page knows of it, as JSON.
    ///
    /// # Errors
    /// There is none, or it gives no device.
    pub async fn open(about: &str) -> Answer<See> {
        let (device, _) = Device::open(about).await?;
        Ok(Self { device })
    }

    /// The adapter as reports have it.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn adapter(&self) -> Answer<String> {
        json(&self.device.adapter)
    }

    /// Attends to a sentence, as the settings say. A device that was lost meanwhile is replaced.
    ///
    /// # Errors
    /// What the library says of the call; there is no device any more.
    pub async fn see(&self, settings: &str) -> Answer<String> {
        let settings: Settings =
            serde_json::from_str(settings).map_err(|e| JsError::new(&e.to_string()))?;
        let sentence = Sentence::new(&settings).map_err(told)?;
        let engine = self.device.engine().await?;
        let seen = match seen(&engine, &sentence).await {
            Err(lost) if lost.is_device_lost() => {
                self.device.replace_later();
                let engine = self.device.engine().await?;
                self.device.kept(seen(&engine, &sentence).await)
            }
            seen => self.device.kept(seen),
        };
        json(&seen.map_err(told)?)
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
