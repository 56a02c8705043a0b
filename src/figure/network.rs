//! Places for the nodes of a graph, the same for the same graph: each connected component is arranged by springs from a
//! regular polygon, and the components are packed side by side, largest first.

use std::f64::consts::TAU;

use super::scene::Point;

/// Rounds of the springs.
const ROUNDS: usize = 240;
/// Furthest move of a node in the first round, in ideal lengths of an edge; it falls to zero.
const FIRST_STEP: f64 = 0.6;
/// Room around a component, in ideal lengths of an edge.
const RIM: f64 = 0.55;
/// Widths of the packing that are tried.
const WIDTHS: usize = 64;

/// An edge between two nodes and its strength, from 0 to 1.
pub type Edge = (usize, usize, f64);

/// Nodes that hang together, largest component first, then by first node; nodes of a component rise.
pub fn components(n: usize, edges: &[Edge]) -> Vec<Vec<usize>> {
    let mut root: Vec<usize> = (0..n).collect();
    fn find(root: &mut [usize], mut node: usize) -> usize {
        while root[node] != node {
            root[node] = root[root[node]];
            node = root[node];
        }
        node
    }
    for (a, b, _) in edges {
        let (a, b) = (find(&mut root, *a), find(&mut root, *b));
        // The lowest node stands for its component.
        root[a.max(b)] = a.min(b);
    }
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); n];
    for node in 0..n {
        members[find(&mut root, node)].push(node);
    }
    members.retain(|members| !members.is_empty());
    // Stable: of equal sizes the one with the lowest node first.
    members.sort_by_key(|members| std::cmp::Reverse(members.len()));
    members
}

/// Where nodes lie in the unit square, y upwards, and the ideal length of an edge there.
pub fn places(n: usize, edges: &[Edge]) -> (Vec<Point>, f64) {
    let components = components(n, edges);
    let local: Vec<Vec<Point>> = components.iter().map(|members| sprung(members, edges)).collect();
    let radius = |places: &Vec<Point>| places.iter().map(|[x, y]| (x * x + y * y).sqrt()).fold(0.0, f64::max) + RIM;
    let radii: Vec<f64> = local.iter().map(radius).collect();
    let (centres, [width, height]) = packed(&radii);
    let side = width.max(height).max(1e-9);
    let mut places = vec![[0.5, 0.5]; n];
    for ((members, local), centre) in components.iter().zip(&local).zip(&centres) {
        for (node, at) in members.iter().zip(local) {
            let x = (centre[0] + at[0] + (side - width) / 2.0) / side;
            let y = 1.0 - (centre[1] - at[1] + (side - height) / 2.0) / side;
            places[*node] = [x, y];
        }
    }
    (places, 1.0 / side)
}

/// The nodes of one component around their middle: springs pull along edges, all nodes push each other away (Fruchterman
/// and Reingold 1991), with the ideal length 1.
fn sprung(members: &[usize], edges: &[Edge]) -> Vec<Point> {
    let n = members.len();
    if n == 1 {
        return vec![[0.0, 0.0]];
    }
    let place_of = |node: usize| members.binary_search(&node).ok();
    let edges: Vec<Edge> =
        edges.iter().filter_map(|(a, b, strength)| Some((place_of(*a)?, place_of(*b)?, *strength))).collect();
    let first = n as f64 / TAU;
    let mut at: Vec<Point> = (0..n)
        .map(|i| {
            let angle = TAU * i as f64 / n as f64;
            [first * libm::cos(angle), first * libm::sin(angle)]
        })
        .collect();
    for round in 0..ROUNDS {
        let mut push = vec![[0.0f64; 2]; n];
        for i in 0..n {
            for j in i + 1..n {
                let (away, distance) = apart(at[i], at[j]);
                let force = 1.0 / distance;
                for k in 0..2 {
                    push[i][k] += away[k] * force;
                    push[j][k] -= away[k] * force;
                }
            }
        }
        for (i, j, strength) in &edges {
            let (away, distance) = apart(at[*i], at[*j]);
            let force = distance * distance * (0.3 + 0.7 * strength);
            for k in 0..2 {
                push[*i][k] -= away[k] * force;
                push[*j][k] += away[k] * force;
            }
        }
        let most = FIRST_STEP * (1.0 - round as f64 / ROUNDS as f64);
        for (place, push) in at.iter_mut().zip(&push) {
            let length = (push[0] * push[0] + push[1] * push[1]).sqrt();
            let step = if length > most { most / length } else { 1.0 };
            *place = [place[0] + push[0] * step, place[1] + push[1] * step];
        }
    }
    let middle = [0, 1].map(|k| at.iter().map(|place| place[k]).sum::<f64>() / n as f64);
    at.iter().map(|[x, y]| [x - middle[0], y - middle[1]]).collect()
}

/// Direction from `b` to `a`, and their distance, which is never zero.
fn apart(a: Point, b: Point) -> ([f64; 2], f64) {
    let away = [a[0] - b[0], a[1] - b[1]];
    let distance = (away[0] * away[0] + away[1] * away[1]).sqrt().max(1e-6);
    (away.map(|part| part / distance), distance)
}

/// Circles in rows, in the order given, in the width of page that makes the whole most square: centres, y downwards, and
/// the size of the whole.
fn packed(radii: &[f64]) -> (Vec<Point>, [f64; 2]) {
    let widest = 2.0 * radii.iter().copied().fold(0.0, f64::max);
    let all: f64 = radii.iter().map(|radius| 2.0 * radius).sum();
    let tries = (0..WIDTHS)
        .map(|i| widest + (all - widest) * (i as f64 / (WIDTHS - 1) as f64) * (i as f64 / (WIDTHS - 1) as f64));
    let side = |(_, [width, height]): &(Vec<Point>, [f64; 2])| width.max(*height);
    let best = tries.map(|width| in_rows(radii, width)).min_by(|a, b| side(a).total_cmp(&side(b)));
    best.unwrap_or((Vec::new(), [0.0, 0.0]))
}

fn in_rows(radii: &[f64], most: f64) -> (Vec<Point>, [f64; 2]) {
    let (mut x, mut top, mut height, mut width) = (0.0f64, 0.0, 0.0f64, 0.0f64);
    let mut centres = Vec::with_capacity(radii.len());
    for radius in radii {
        if x > 0.0 && x + 2.0 * radius > most + 1e-9 {
            (top, x, height) = (top + height, 0.0, 0.0);
        }
        centres.push([x + radius, top + radius]);
        x += 2.0 * radius;
        height = height.max(2.0 * radius);
        width = width.max(x);
    }
    (centres, [width, top + height])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_come_largest_first_with_their_nodes_rising() {
        let edges = [(5, 2, 1.0), (0, 3, 1.0), (3, 5, 1.0), (6, 4, 1.0)];
        assert_eq!(components(8, &edges), [vec![0, 2, 3, 5], vec![4, 6], vec![1], vec![7]]);
        assert!(components(0, &[]).is_empty());
    }

    #[test]
    fn a_triangle_becomes_a_regular_one_and_a_pair_has_one_length() {
        let sides = |places: &[Point], pairs: &[(usize, usize)]| -> Vec<f64> {
            pairs.iter().map(|(a, b)| apart(places[*a], places[*b]).1).collect()
        };
        let (places, _) = places(3, &[(0, 1, 1.0), (1, 2, 1.0), (0, 2, 1.0)]);
        let triangle = sides(&places, &[(0, 1), (1, 2), (0, 2)]);
        // The springs are the same on all sides and start equal, so only rounding sets them apart.
        assert!(triangle.iter().all(|side| (side / triangle[0] - 1.0).abs() < 1e-9), "{triangle:?}");
        let pair = sides(&sprung(&[0, 1], &[(0, 1, 1.0)]), &[(0, 1)])[0];
        // Push 1/d against pull d²: at rest at d = 1, where the last, smallest steps leave it.
        assert!((pair - 1.0).abs() < 0.02, "{pair}");
    }

    #[test]
    fn every_node_lies_in_the_square_and_no_two_at_one_place() {
        let mut edges: Vec<Edge> = (0..30).map(|i| (2 * i, 2 * i + 1, 1.0)).collect();
        edges.extend((60..80).flat_map(|i| (60..i).map(move |j| (i, j, 0.5))));
        let (found, _) = places(100, &edges);
        for (i, [x, y]) in found.iter().enumerate() {
            assert!((0.0..=1.0).contains(x) && (0.0..=1.0).contains(y), "{i}: {x} {y}");
            assert!(found[..i].iter().all(|other| apart(*other, [*x, *y]).1 > 1e-3), "{i}");
        }
        assert_eq!(places(100, &edges).0, found);
    }
}
