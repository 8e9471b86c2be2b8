//! Laws that hold for any policy, ceiling, machine and command.

mod documents;
mod min;
mod within;
