//! Colours: viridis for amounts, blue-white-red for signed values, Okabe-Ito for kinds, and the three fixed phases.

/// A colour, eight bits a channel, sRGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    const fn hex(value: u32) -> Rgb {
        let [_, red, green, blue] = value.to_be_bytes();
        Rgb(red, green, blue)
    }

    /// The colour `share` of the way from `self` (0) to `other` (1).
    pub fn towards(self, other: Rgb, share: f64) -> Rgb {
        let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
        Rgb(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }
}

/// A continuous colour scale over [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ramp {
    /// Dark violet to yellow, evenly perceived: amounts.
    Viridis,
    /// Blue, white at one half, red: signed values.
    Diverging,
}

impl Ramp {
    /// The colour at `share` of the scale; outside [0, 1] the end colours.
    pub fn at(self, share: f64) -> Rgb {
        let share = share.clamp(0.0, 1.0);
        match self {
            // Nearest of 256 entries, so a printed colour can be looked up in the published table.
            Ramp::Viridis => Rgb::hex(VIRIDIS[(share * 255.0).round() as usize]),
            Ramp::Diverging => {
                let place = share * (DIVERGING.len() - 1) as f64;
                let low = (place.floor() as usize).min(DIVERGING.len() - 2);
                Rgb::hex(DIVERGING[low]).towards(Rgb::hex(DIVERGING[low + 1]), place - low as f64)
            }
        }
    }
}

/// Colours of kinds, in the order in which they are given out (Okabe and Ito 2008, "Color universal design"). Yellow,
/// too faint on white for a line, comes last.
pub const KINDS: [Rgb; 8] = [
    Rgb::hex(0x0072b2), // blue
    Rgb::hex(0xd55e00), // vermillion
    Rgb::hex(0x009e73), // bluish green
    Rgb::hex(0xe69f00), // orange
    Rgb::hex(0x56b4e9), // sky blue
    Rgb::hex(0xcc79a7), // reddish purple
    Rgb::hex(0x000000), // black
    Rgb::hex(0xf0e442), // yellow
];

/// Names and colours of the phases a feature can be in; the same in every figure.
pub const PHASES: [(&str, Rgb); 3] =
    [("dropped", Rgb::hex(0xd9d9d9)), ("superposed", Rgb::hex(0xd55e00)), ("dedicated", Rgb::hex(0x0072b2))];

/// The fixed colour of a phase, `None` for any other word.
pub fn phase(name: &str) -> Option<Rgb> {
    PHASES.iter().find(|(known, _)| *known == name).map(|(_, colour)| *colour)
}

/// Stops of the diverging scale: ColorBrewer's RdBu with eleven classes, reversed, its middle set to white.
const DIVERGING: [u32; 11] =
    [0x053061, 0x2166ac, 0x4393c3, 0x92c5de, 0xd1e5f0, 0xffffff, 0xfddbc7, 0xf4a582, 0xd6604d, 0xb2182b, 0x67001f];

/// Viridis (Smith, van der Walt and Firing 2015; dedicated to the public domain, CC0), rounded to eight bits.
#[rustfmt::skip]
const VIRIDIS: [u32; 256] = [
    0x440154, 0x440256, 0x450457, 0x450559, 0x46075a, 0x46085c, 0x460a5d, 0x460b5e,
    0x470d60, 0x470e61, 0x471063, 0x471164, 0x471365, 0x481467, 0x481668, 0x481769,
    0x48186a, 0x481a6c, 0x481b6d, 0x481c6e, 0x481d6f, 0x481f70, 0x482071, 0x482173,
    0x482374, 0x482475, 0x482576, 0x482677, 0x482878, 0x482979, 0x472a7a, 0x472c7a,
    0x472d7b, 0x472e7c, 0x472f7d, 0x46307e, 0x46327e, 0x46337f, 0x463480, 0x453581,
    0x453781, 0x453882, 0x443983, 0x443a83, 0x443b84, 0x433d84, 0x433e85, 0x423f85,
    0x424086, 0x424186, 0x414287, 0x414487, 0x404588, 0x404688, 0x3f4788, 0x3f4889,
    0x3e4989, 0x3e4a89, 0x3e4c8a, 0x3d4d8a, 0x3d4e8a, 0x3c4f8a, 0x3c508b, 0x3b518b,
    0x3b528b, 0x3a538b, 0x3a548c, 0x39558c, 0x39568c, 0x38588c, 0x38598c, 0x375a8c,
    0x375b8d, 0x365c8d, 0x365d8d, 0x355e8d, 0x355f8d, 0x34608d, 0x34618d, 0x33628d,
    0x33638d, 0x32648e, 0x32658e, 0x31668e, 0x31678e, 0x31688e, 0x30698e, 0x306a8e,
    0x2f6b8e, 0x2f6c8e, 0x2e6d8e, 0x2e6e8e, 0x2e6f8e, 0x2d708e, 0x2d718e, 0x2c718e,
    0x2c728e, 0x2c738e, 0x2b748e, 0x2b758e, 0x2a768e, 0x2a778e, 0x2a788e, 0x29798e,
    0x297a8e, 0x297b8e, 0x287c8e, 0x287d8e, 0x277e8e, 0x277f8e, 0x27808e, 0x26818e,
    0x26828e, 0x26828e, 0x25838e, 0x25848e, 0x25858e, 0x24868e, 0x24878e, 0x23888e,
    0x23898e, 0x238a8d, 0x228b8d, 0x228c8d, 0x228d8d, 0x218e8d, 0x218f8d, 0x21908d,
    0x21918c, 0x20928c, 0x20928c, 0x20938c, 0x1f948c, 0x1f958b, 0x1f968b, 0x1f978b,
    0x1f988b, 0x1f998a, 0x1f9a8a, 0x1e9b8a, 0x1e9c89, 0x1e9d89, 0x1f9e89, 0x1f9f88,
    0x1fa088, 0x1fa188, 0x1fa187, 0x1fa287, 0x20a386, 0x20a486, 0x21a585, 0x21a685,
    0x22a785, 0x22a884, 0x23a983, 0x24aa83, 0x25ab82, 0x25ac82, 0x26ad81, 0x27ad81,
    0x28ae80, 0x29af7f, 0x2ab07f, 0x2cb17e, 0x2db27d, 0x2eb37c, 0x2fb47c, 0x31b57b,
    0x32b67a, 0x34b679, 0x35b779, 0x37b878, 0x38b977, 0x3aba76, 0x3bbb75, 0x3dbc74,
    0x3fbc73, 0x40bd72, 0x42be71, 0x44bf70, 0x46c06f, 0x48c16e, 0x4ac16d, 0x4cc26c,
    0x4ec36b, 0x50c46a, 0x52c569, 0x54c568, 0x56c667, 0x58c765, 0x5ac864, 0x5cc863,
    0x5ec962, 0x60ca60, 0x63cb5f, 0x65cb5e, 0x67cc5c, 0x69cd5b, 0x6ccd5a, 0x6ece58,
    0x70cf57, 0x73d056, 0x75d054, 0x77d153, 0x7ad151, 0x7cd250, 0x7fd34e, 0x81d34d,
    0x84d44b, 0x86d549, 0x89d548, 0x8bd646, 0x8ed645, 0x90d743, 0x93d741, 0x95d840,
    0x98d83e, 0x9bd93c, 0x9dd93b, 0xa0da39, 0xa2da37, 0xa5db36, 0xa8db34, 0xaadc32,
    0xaddc30, 0xb0dd2f, 0xb2dd2d, 0xb5de2b, 0xb8de29, 0xbade28, 0xbddf26, 0xc0df25,
    0xc2df23, 0xc5e021, 0xc8e020, 0xcae11f, 0xcde11d, 0xd0e11c, 0xd2e21b, 0xd5e21a,
    0xd8e219, 0xdae319, 0xdde318, 0xdfe318, 0xe2e418, 0xe5e419, 0xe7e419, 0xeae51a,
    0xece51b, 0xefe51c, 0xf1e51d, 0xf4e61e, 0xf6e620, 0xf8e621, 0xfbe723, 0xfde725,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viridis_starts_violet_passes_teal_and_ends_yellow() {
        assert_eq!(Ramp::Viridis.at(0.0), Rgb(68, 1, 84));
        assert_eq!(Ramp::Viridis.at(128.0 / 255.0), Rgb(33, 145, 140));
        assert_eq!(Ramp::Viridis.at(1.0), Rgb(253, 231, 37));
    }

    #[test]
    fn viridis_never_jumps_and_grows_lighter_all_the_way() {
        let luma = |Rgb(r, g, b): Rgb| 0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b);
        for i in 0..255 {
            let (here, next) = (Ramp::Viridis.at(i as f64 / 255.0), Ramp::Viridis.at((i + 1) as f64 / 255.0));
            for (a, b) in [(here.0, next.0), (here.1, next.1), (here.2, next.2)] {
                // The published table moves by at most 4/255 per entry; a mistyped digit moves by 16 or more.
                assert!(a.abs_diff(b) <= 4, "entry {i}: {here:?} to {next:?}");
            }
            // Rounding to eight bits can take back at most half a level in each channel.
            assert!(luma(next) > luma(here) - 0.5, "entry {i}");
        }
    }

    #[test]
    fn the_diverging_scale_is_white_at_its_middle_and_blue_below() {
        assert_eq!(Ramp::Diverging.at(0.5), Rgb(255, 255, 255));
        assert!(Ramp::Diverging.at(0.1).2 > Ramp::Diverging.at(0.1).0);
        assert!(Ramp::Diverging.at(0.9).0 > Ramp::Diverging.at(0.9).2);
    }

    #[test]
    fn values_outside_the_scale_take_the_end_colours() {
        assert_eq!(Ramp::Viridis.at(-3.0), Ramp::Viridis.at(0.0));
        assert_eq!(Ramp::Viridis.at(7.0), Ramp::Viridis.at(1.0));
    }

    #[test]
    fn phases_have_their_fixed_colours() {
        assert_eq!(phase("superposed"), Some(Rgb(0xd5, 0x5e, 0x00)));
        assert_eq!(phase("dedicated"), Some(Rgb(0x00, 0x72, 0xb2)));
        assert_eq!(phase("dropped"), Some(Rgb(0xd9, 0xd9, 0xd9)));
        assert_eq!(phase("topk"), None);
    }
}
