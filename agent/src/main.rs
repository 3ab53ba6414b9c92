//! The binary `baton`.

fn main() {}
