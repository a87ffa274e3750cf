//! The JSON schema of the file, as it is shipped: made from the types that read it, for tests only.
use super::flow_log::{FlowLogEntry, FlowLogTable};
use super::given::Given;
use super::named::NamedValues;
use super::settings::GatewaySettings;
use super::values::{DeviceEntry, DeviceTable, RouteEntry, RouteTable, TextValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// The schema, as the text of the file.
pub(super) fn gateway_schema() -> String {
    let mut schema = serde_json::to_value(schemars::schema_for!(GatewaySettings)).unwrap_or_default();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "keepstate gateway.toml".into());
        root.insert("required".into(), serde_json::json!(["version"]));
    }
    format!("{schema:#}\n")
}

impl<T: JsonSchema> JsonSchema for Given<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<V: JsonSchema> JsonSchema for NamedValues<V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<V>();
        json_schema!({"type": "object", "additionalProperties": value})
    }
}

impl<T> JsonSchema for TextValue<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

impl JsonSchema for DeviceEntry {
    fn schema_name() -> Cow<'static, str> {
        "Device".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        DeviceTable::json_schema(generator)
    }
}

impl JsonSchema for FlowLogEntry {
    fn schema_name() -> Cow<'static, str> {
        "FlowLog".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        FlowLogTable::json_schema(generator)
    }
}

impl JsonSchema for RouteEntry {
    fn schema_name() -> Cow<'static, str> {
        "Route".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RouteTable::json_schema(generator)
    }
}
