//! The rules every user starts with: the specification's, and the older ones for clients that do not say whom they mention.
//!
//! The specification dropped the older rules (`.m.rule.contains_display_name`, `.m.rule.roomnotif`,
//! `.m.rule.contains_user_name`) with version 1.17. Bridges and older clients still send messages without `m.mentions`, so we
//! keep them; an event with `m.mentions` is never judged by them.
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>.

use ruma::{
    UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData, HighlightTweakValue,
        PatternedPushRule, PatternedPushRuleInit, PushCondition, Ruleset, SenderNotificationPermissionConditionData,
        SoundTweakValue, Tweak,
    },
};

/// Default rules whose outcome depends on who reads: an event that might match one of them for a user is judged for that user
/// alone, every other event once for all.
pub(super) const PERSONAL_RULES: [&str; 4] =
    [".m.rule.invite_for_me", ".m.rule.is_user_mention", CONTAINS_DISPLAY_NAME, CONTAINS_USER_NAME];

pub(super) const CONTAINS_DISPLAY_NAME: &str = ".m.rule.contains_display_name";
const CONTAINS_USER_NAME: &str = ".m.rule.contains_user_name";
const ROOMNOTIF: &str = ".m.rule.roomnotif";

/// The default rules of `user_id`.
#[must_use]
pub fn defaults(user_id: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user_id);
    place_after(&mut rules, ".m.rule.is_user_mention", contains_display_name());
    place_after(&mut rules, ".m.rule.is_room_mention", roomnotif());
    rules.content.insert(contains_user_name(user_id));
    rules
}

fn place_after(rules: &mut Ruleset, before: &str, rule: ConditionalPushRule) {
    let position = rules.override_.get_index_of(before).map_or(rules.override_.len(), |index| index + 1);
    let (index, _) = rules.override_.insert_full(rule);
    rules.override_.move_index(index, position.min(index));
}

fn contains_display_name() -> ConditionalPushRule {
    #[expect(deprecated, reason = "the module's description says why")]
    let condition = PushCondition::ContainsDisplayName;
    ConditionalPushRuleInit {
        actions: mention_actions(),
        default: true,
        enabled: true,
        rule_id: CONTAINS_DISPLAY_NAME.to_owned(),
        conditions: vec![condition],
    }
    .into()
}

fn roomnotif() -> ConditionalPushRule {
    ConditionalPushRuleInit {
        actions: vec![Action::Notify, Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))],
        default: true,
        enabled: true,
        rule_id: ROOMNOTIF.to_owned(),
        conditions: vec![
            PushCondition::EventMatch(EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned())),
            PushCondition::SenderNotificationPermission(SenderNotificationPermissionConditionData::new(
                NotificationPowerLevelsKey::Room,
            )),
        ],
    }
    .into()
}

fn contains_user_name(user_id: &UserId) -> PatternedPushRule {
    PatternedPushRuleInit {
        actions: mention_actions(),
        default: true,
        enabled: true,
        rule_id: CONTAINS_USER_NAME.to_owned(),
        pattern: user_id.localpart().to_owned(),
    }
    .into()
}

fn mention_actions() -> Vec<Action> {
    vec![
        Action::Notify,
        Action::SetTweak(Tweak::Sound(SoundTweakValue::Default)),
        Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes)),
    ]
}
