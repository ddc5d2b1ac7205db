//! Tests of `table` and `budget`, apart from them: the model in `tests/table_model.rs` compiles both
//! files once more, over locks that these tests could not use.

mod budget;
mod table;
