//! Laws that hold for any policy, ceiling, machine and command.

mod documents;
mod files;
mod min;
mod within;
