//! The order in which a bench visits flows.

/// The order in which flows are visited.
#[derive(Clone, Copy, Debug)]
pub enum FlowOrder {
    /// One after another: so they enter the tables.
    AsEntered,
    /// Consecutive ones far apart. Visited in the order in which they came, flows would be read in order of memory, and a table look faster than it is.
    Jumping,
}

impl FlowOrder {
    /// From one of so many flows to the next: it has no divisor in common with their number, so that every one is visited.
    pub fn step(self, flows: u32) -> u32 {
        match self {
            FlowOrder::AsEntered => 1,
            FlowOrder::Jumping => {
                let golden = (f64::from(flows) * 0.618) as u32;
                (golden.max(1)..).find(|step| greatest_common_divisor(*step, flows) == 1).unwrap_or(1)
            }
        }
    }

    /// The flows by their numbers, as they are visited from the first one on, again and again.
    pub fn visits(self, flows: u32) -> impl Iterator<Item = u32> {
        let step = u64::from(self.step(flows));
        (0_u64..).map(move |visited| (visited * step % u64::from(flows)) as u32)
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flow_is_visited_once_far_from_the_one_before() {
        for flows in [1, 2, 1000, 10_000, 200_000] {
            let mut visited = vec![false; flows as usize];
            let order = FlowOrder::Jumping.visits(flows).take(flows as usize);
            order.for_each(|flow| visited[flow as usize] = true);
            assert!(visited.iter().all(|visited| *visited), "{flows} flows");
            let step = FlowOrder::Jumping.step(flows);
            assert!(flows < 1000 || (flows / 3..flows * 2 / 3).contains(&step), "{flows} flows by steps of {step}");
            assert!(FlowOrder::AsEntered.visits(flows).take(flows as usize).eq(0..flows));
        }
    }
}
