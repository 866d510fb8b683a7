//! What is said about the code, compared with the code; and mistakes, which the tools that look for them must find.

mod auto_traits;
mod isolation;
mod numbers;
mod orderings;
mod prose;
mod sanitized;
