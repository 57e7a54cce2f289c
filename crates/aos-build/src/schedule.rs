//! Builds the stages that are needed, those that do not depend on each other at once.
//!
//! Concurrency: a few threads take the first stage, in the plan's order, all of whose needs are
//! done. After an error no further stage is begun; of several errors the one of the first stage in
//! the plan's order is told, whichever came first.

use crate::builder::Builder;
use crate::error::BuildError;
use crate::made::Made;
use aos_core::agentfile::{Build, StageName, graph};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    /// Stages that are begun.
    begun: Vec<bool>,
    running: usize,
    done: BTreeMap<StageName, Arc<Made>>,
    /// The error of the first stage among those that failed, by its place in the order.
    error: Option<(usize, BuildError)>,
}

struct Schedule<'b> {
    build: &'b Build,
    /// Indexes of the stages that are needed, in the plan's order.
    order: &'b [usize],
    state: Mutex<State>,
    changed: Condvar,
}

/// Builds stages in this order and returns the one that makes the package.
pub(crate) fn run(builder: &Builder<'_>, build: &Build, order: &[usize]) -> Result<Arc<Made>, BuildError> {
    let state = State { begun: vec![false; order.len()], ..State::default() };
    let schedule = Schedule { build, order, state: Mutex::new(state), changed: Condvar::new() };
    let threads = builder.options.threads.get().min(order.len()).saturating_sub(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| schedule.work(builder));
        }
        schedule.work(builder);
    });
    let mut state = schedule.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, error)) = state.error {
        return Err(error);
    }
    let output = build.output().and_then(|stage| state.done.remove(&stage.name));
    output.ok_or(BuildError::Internal("the output stage is not built"))
}

impl Schedule<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds stages until there are none to begin.
    fn work(&self, builder: &Builder<'_>) {
        loop {
            let mut state = self.state();
            let place = loop {
                if state.error.is_some() || state.begun.iter().all(|begun| *begun) {
                    return;
                }
                match self.ready(&state) {
                    Some(place) => break place,
                    // Nothing is running that could make one ready: the order is not one.
                    None if state.running == 0 => return,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            if let Some(begun) = state.begun.get_mut(place) {
                *begun = true;
            }
            state.running += 1;
            drop(state);
            let result = self.build(builder, place);
            let mut state = self.state();
            state.running -= 1;
            match result {
                Ok((name, made)) => drop(state.done.insert(name, made)),
                Err(error) if state.error.as_ref().is_none_or(|(first, _)| place < *first) => {
                    state.error = Some((place, error));
                }
                Err(_) => {}
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The first stage that can begin.
    fn ready(&self, state: &State) -> Option<usize> {
        let is_ready = |index: usize| {
            let stage = self.build.stages.get(index)?;
            graph::needs(stage).iter().all(|(_, name)| state.done.contains_key(*name)).then_some(())
        };
        let open = self.order.iter().enumerate().filter(|(place, _)| state.begun.get(*place) == Some(&false));
        open.into_iter().find_map(|(place, index)| is_ready(*index).map(|()| place))
    }

    fn build(&self, builder: &Builder<'_>, place: usize) -> Result<(StageName, Arc<Made>), BuildError> {
        let index = self.order.get(place).copied().unwrap_or(usize::MAX);
        let stage = self.build.stages.get(index).ok_or(BuildError::Internal("a stage is not there"))?;
        let done = |name: &StageName| self.state().done.get(name).cloned();
        let made = builder.stage(index, stage, &done)?;
        Ok((stage.name.clone(), Arc::new(made)))
    }
}
