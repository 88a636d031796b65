//! mouth
fn main() {}
