//! What a device is and what was asked of it: contradictions are refused in words.

use super::{EngineChoice, StackConfig};
use crate::error::LinkError;
use crate::netdev::Interface;

impl StackConfig {
    /// # Errors
    /// [`LinkError::Config`] for what the device cannot be told, [`LinkError::Unsupported`] for an engine it cannot have.
    pub(super) fn check_device(&self, interface: &Interface) -> Result<(), LinkError> {
        self.check(&interface.name, interface.ethernet)
    }

    fn check(&self, name: &str, ethernet: bool) -> Result<(), LinkError> {
        if let Some(vlan) = self.vlan.filter(|vlan| !VLANS.contains(vlan)) {
            return Err(LinkError::config(format!("{vlan} is no VLAN: use --vlan 1 to 4094")));
        }
        if ethernet {
            if self.ip_layer {
                return Err(LinkError::config(format!(
                    "the interface {name} speaks Ethernet, where packets without its header would be lost: leave out \
                     --iplayer, or name a device without Ethernet with --interface"
                )));
            }
            return Ok(());
        }
        let given = [
            (self.gateway_mac.is_some(), "--gateway-mac"),
            (self.source_mac.is_some(), "--source-mac"),
            (self.vlan.is_some(), "--vlan"),
        ];
        if let Some((_, option)) = given.iter().find(|(given, _)| *given) {
            return Err(LinkError::config(format!(
                "{option} is of Ethernet, which {name} does not speak: leave it out, packets find their way without"
            )));
        }
        if self.engine == EngineChoice::Live {
            return Err(LinkError::Unsupported(format!(
                "the engine live sends Ethernet frames, and {name} takes packets from the IP header on: use \
                 --engine packet, or auto"
            )));
        }
        Ok(())
    }
}

/// IEEE 802.1Q: 0 is a priority without a VLAN, 4095 is reserved.
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

#[cfg(test)]
mod tests {
    use irl_wire::Mac;

    use super::*;

    fn refusal(config: StackConfig, ethernet: bool) -> Option<String> {
        config.check("dev0", ethernet).err().map(|error| error.to_string())
    }

    #[test]
    fn a_device_is_told_only_what_it_can_do() {
        assert_eq!(refusal(StackConfig::default(), true), None);
        assert_eq!(refusal(StackConfig::default(), false), None);
        assert_eq!(refusal(StackConfig { ip_layer: true, ..StackConfig::default() }, false), None);
        let mac = Some(Mac([2; 6]));
        for (config, ethernet, option) in [
            (StackConfig { ip_layer: true, ..StackConfig::default() }, true, "--iplayer"),
            (StackConfig { gateway_mac: mac, ..StackConfig::default() }, false, "--gateway-mac"),
            (StackConfig { source_mac: mac, ..StackConfig::default() }, false, "--source-mac"),
            (StackConfig { vlan: Some(7), ..StackConfig::default() }, false, "--vlan"),
            (StackConfig { engine: EngineChoice::Live, ..StackConfig::default() }, false, "--engine packet"),
        ] {
            let text = refusal(config, ethernet).unwrap_or_default();
            assert!(text.contains(option) && text.contains("dev0"), "{option}: {text}");
        }
    }

    #[test]
    fn a_tag_is_a_vlan_of_the_standard() {
        let tagged = |vlan| refusal(StackConfig { vlan: Some(vlan), ..StackConfig::default() }, true);
        assert_eq!([1, 7, 4094].map(tagged), [None, None, None]);
        for vlan in [0, 4095, 65535] {
            assert!(tagged(vlan).unwrap_or_default().contains(&format!("{vlan} is no VLAN")), "{vlan}");
        }
    }
}
