//! Check: the cases of a grid on the visitor's device, and times of a few calls.

use std::cell::RefCell;

use heedful::bench::Roofline;
use heedful::verify::report::{CaseResult, Host, Left};
use serde::Serialize;
use wasm_bindgen::prelude::{JsError, wasm_bindgen};

use crate::cases::Cases;
use crate::device::Device;
use crate::{Answer, bench, json, told};

/// What calls are held against, and the calls.
#[derive(Serialize)]
struct Limits<'a> {
    roofline: &'a Roofline,
    calls: Vec<&'static str>,
}

/// What the page loads to verify and to time.
#[wasm_bindgen]
pub struct Check {
    device: Device,
    host: Host,
    cases: RefCell<Option<Cases>>,
    roofline: RefCell<Option<Roofline>>,
}

#[wasm_bindgen]
impl Check {
    /// Opens the browser's best adapter; `about` is what the page knows of it, as JSON.
    ///
    /// # Errors
    /// There is none, or it gives no device.
    pub async fn open(about: &str) -> Answer<Check> {
        let (device, host) = Device::open(about).await?;
        let (cases, roofline) = (RefCell::default(), RefCell::default());
        Ok(Self { device, host, cases, roofline })
    }

    /// Begins to verify a grid, `slots` or `quick`: the names of its cases.
    ///
    /// # Errors
    /// There is no such grid.
    pub fn begin(&self, grid: &str) -> Answer<String> {
        let cases =
            Cases::new(grid, self.device.adapter.clone(), self.host.clone()).map_err(told)?;
        let names = json(&cases.names());
        *self.cases.borrow_mut() = Some(cases);
        names
    }

    /// Runs a case of the grid: its rows. A device that fails in one path is replaced before the next, and where that
    /// cannot be, the rows say which paths were not run.
    ///
    /// # Errors
    /// No grid was begun, there is no such case, or there is no device to begin it on.
    pub async fn check(&self, place: usize) -> Answer<String> {
        let mut engine = self.device.engine().await?;
        let mut running = match &*self.cases.borrow() {
            Some(cases) => cases.case(place).map_err(told)?,
            None => return Err(JsError::new("nothing is being verified")),
        };
        let mut rows = Vec::new();
        while running.more() {
            let (row, left) = running.row(&engine, &self.device.adapter).await.map_err(told)?;
            // In the report at once: whatever comes after it, it was seen.
            self.add(&row);
            rows.push(row);
            if left == Left::Sound {
                continue;
            }
            self.device.replace_later();
            if running.more() {
                match self.device.engine().await {
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

    /// What was verified so far, as the page that `heedful verify --report FILE.html` writes.
    ///
    /// # Errors
    /// Nothing was.
    pub fn report_html(&self) -> Answer<String> {
        self.report(|cases| cases.report().to_html())
    }

    /// The same as the JSON that `heedful report` reads.
    ///
    /// # Errors
    /// Nothing was.
    pub fn report_json(&self) -> Answer<String> {
        self.report(|cases| cases.report().to_json())
    }

    /// Measures what the device can do: multiply-adds, memory, dispatches; with the calls that can be timed.
    ///
    /// # Errors
    /// The device is lost, or there is none.
    pub async fn measure(&self) -> Answer<String> {
        let engine = self.device.engine().await?;
        let measured = self.device.kept(Roofline::measure_async(&engine).await);
        let roofline = measured.map_err(told)?;
        *self.roofline.borrow_mut() = Some(roofline);
        let calls = bench::calls(&self.device.adapter).iter().map(bench::Timed::title).collect();
        json(&Limits { roofline: &roofline, calls })
    }

    /// Times one of the calls.
    ///
    /// # Errors
    /// Nothing was measured, there is no such call, the device is lost, or there is none.
    pub async fn time(&self, place: usize) -> Answer<String> {
        let roofline = *self.roofline.borrow();
        let roofline = roofline.ok_or_else(|| JsError::new("the device was not measured"))?;
        let call = bench::calls(&self.device.adapter).into_iter().nth(place);
        let call = call.ok_or_else(|| JsError::new("there is no such call"))?;
        let engine = self.device.engine().await?;
        let row = self.device.kept(call.row(&engine, &roofline).await);
        json(&row.map_err(told)?)
    }

    fn add(&self, row: &CaseResult) {
        if let Some(cases) = &mut *self.cases.borrow_mut() {
            cases.add(row);
        }
    }

    fn report(&self, text: impl FnOnce(&Cases) -> heedful::Result<String>) -> Answer<String> {
        match &*self.cases.borrow() {
            Some(cases) => text(cases).map_err(told),
            None => Err(JsError::new("nothing was verified")),
        }
    }
}
