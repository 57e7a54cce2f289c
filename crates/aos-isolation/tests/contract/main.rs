//! The contract: what every backend has to keep, one suite over all of them.
//!
//! A backend is tested when it works on this machine. `AOS_ISOLATION_REQUIRED` names those that have to be
//! there (`native,oci:crun,...`): one that does not work then fails its tests and says why. Without the
//! variable `native` alone is required, and what is not there is said.
//!
//! The programs are those in the directories of `AOS_ISOLATION_PROGRAMS` (separated by `:`), then those beside
//! this test, then Debian's. Run as root: an agent of its own uid is started, and control groups are made.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and what is not tested is told"
)]

mod bed;
mod confinement;
mod files;
mod limits;
mod process;

use aos_isolation::backend::Backend;

/// Makes a module with the whole contract for a backend.
macro_rules! contract {
    ($($name:ident: $backend:expr;)*) => {
        $(mod $name {
            use super::*;
            each! { $backend;
                process::status_and_streams, process::standard_input, process::an_output_that_is_closed,
                process::signals, process::a_stop_is_passed_on,
                process::arguments_environment_and_directory, process::nothing_is_inherited,
                process::readiness_is_told_once,
                process::the_launcher_hands_a_plan_over, process::the_end_leaves_nothing, process::a_kill_leaves_nothing,
                process::a_driver_that_is_killed_leaves_nothing,
                files::a_grant_to_read, files::a_grant_to_write, files::a_grant_in_a_grant, files::a_mount_in_a_grant, files::what_is_not_granted_is_absent,
                files::the_workspace, files::shared_maps, files::memory_is_bounded, files::programs, files::a_link_is_refused,
                files::the_root_is_read_only,
                confinement::the_user, confinement::no_capability, confinement::system_calls,
                confinement::no_network, confinement::no_process_of_the_host, confinement::the_host_name,
                limits::tasks, limits::the_control_group_holds, limits::core_files,
                refused::a_step_is_refused, refused::a_missing_source_names_the_capability,
            }
        })*
    };
}

/// One test for each function.
macro_rules! each {
    ($backend:expr; $($module:ident :: $test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            if let Some(bed) = bed::Bed::of($backend) {
                $module::$test(&bed);
            }
        })*
    };
}

mod refused;

contract! {
    native: Backend::Native;
    crun: Backend::Crun;
    runc: Backend::Runc;
    gvisor: Backend::Gvisor;
    vm: Backend::Vm;
}
