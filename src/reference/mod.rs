//! stub
use crate::error::Result;
use crate::feature::Operands;
use crate::problem::Problem;
/// in
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// q
    pub q: &'a [f64],
    /// k
    pub k: &'a [f64],
    /// v
    pub v: &'a [f64],
    /// ops
    pub operands: Operands<'a>,
}
/// out
#[derive(Debug)]
pub struct Outputs {
    /// o
    pub o: Vec<f64>,
    /// lse
    pub lse: Vec<f64>,
    /// w
    pub weights: Option<Vec<f64>>,
}
impl Inputs<'_> {
    pub(crate) fn validate(&self, _p: &Problem) -> Result<()> {
        Ok(())
    }
}
