//! Values of 64 bits, packed pairs, mixed precision, dot products.

mod doubles;
mod integers;
mod packed;
mod products;

use crate::Case;
use crate::state::State;

/// A function of each active lane.
fn each(f: impl Fn(&mut State, usize) + 'static) -> impl Fn(&mut State) + 'static {
    move |s| s.lanes().into_iter().for_each(|lane| f(s, lane))
}

pub fn cases() -> Vec<Case> {
    let mut cases = doubles::cases();
    cases.extend(integers::cases());
    cases.extend(packed::cases());
    cases.extend(products::cases());
    cases
}
