//! Chooses, over all regions, which forms of the values cross each border: a shortest path.
//!
//! A region's solution for a set of leaving forms is a step of the path; it costs its picoseconds and ends at the set of forms that it asks of
//! the region before. The path is sought from the last region, which must offer nothing, to the first, which can ask for nothing. Equal
//! regions share their solutions.

use super::Saturated;
use super::extract::{Menu, Only, Solution};
use super::region::{Regions, Template};
use std::collections::{BTreeMap, HashMap};

/// A region's part of the path.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Forms that leave, as bits.
    pub leave: u64,
    /// Launches.
    pub solution: Solution,
}

/// The cheapest path, one entry per region; `Err` is the region that has no solution.
pub fn link(regions: &Regions, saturated: &[Saturated], menus: &[Menu]) -> Result<Vec<Chosen>, usize> {
    let mut known: HashMap<(usize, u64), Vec<Solution>> = HashMap::new();
    // Per region from the last: for each set of leaving forms that is in question, the picoseconds from here to the end and the
    // set that leaves the next region.
    let mut costs: BTreeMap<u64, u64> = BTreeMap::from([(0, 0)]);
    let mut trail: Vec<BTreeMap<u64, (u64, Solution)>> = Vec::new();
    for (i, region) in regions.regions.iter().enumerate().rev() {
        let (template, index) = (&regions.templates[region.template], region.template);
        let mut asked: BTreeMap<u64, (u64, u64, Solution)> = BTreeMap::new();
        for (leave, after) in &costs {
            let solutions = known
                .entry((index, *leave))
                .or_insert_with(|| solve(template, &saturated[index], &menus[index], *leave).unwrap_or_default());
            for solution in solutions.iter() {
                let total = after + solution.ps;
                if asked.get(&solution.enter).is_none_or(|(known, ..)| total < *known) {
                    asked.insert(solution.enter, (total, *leave, solution.clone()));
                }
            }
        }
        if asked.is_empty() {
            return Err(i);
        }
        costs = asked.iter().map(|(enter, (total, ..))| (*enter, *total)).collect();
        trail.push(asked.into_iter().map(|(enter, (_, leave, solution))| (enter, (leave, solution))).collect());
    }
    let mut path = Vec::new();
    let mut enter = 0;
    for (i, step) in trail.into_iter().rev().enumerate() {
        let Some((leave, solution)) = step.get(&enter).cloned() else {
            return Err(i);
        };
        enter = leave;
        path.push(Chosen { leave, solution });
    }
    Ok(path)
}

/// Positions of the classes that a region must compute for a set of leaving forms, or `None` if it knows no such form.
pub fn wanted(template: &Template, saturated: &Saturated, menu: &Menu, leave: u64) -> Option<Vec<usize>> {
    let mut classes: Vec<_> = template.roots.iter().map(|n| saturated.nodes[*n]).collect();
    for (i, class) in saturated.leave.iter().enumerate() {
        if leave & (1 << i) != 0 {
            classes.push((*class)?);
        }
    }
    Some(classes.into_iter().filter_map(|id| menu.position(saturated.egraph.find(id))).collect())
}

fn solve(template: &Template, saturated: &Saturated, menu: &Menu, leave: u64) -> Option<Vec<Solution>> {
    Some(menu.solve(&wanted(template, saturated, menu, leave)?, &Only::Anything))
}
