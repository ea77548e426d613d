"""The object store on obstore (Rust's `object_store`): the only package that knows it."""
