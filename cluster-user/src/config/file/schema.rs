//! The JSON Schema of the own form, for editors that complete and check.

use serde_json::{Map, Value, json};

use super::example::in_file;
use crate::config::definition::Definition;

/// The schema of `cluster.toml`, draft 2020-12.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for (key, schema) in Definition::schemas() {
        // The name is the table's.
        if key != "name" {
            let mut schema = schema.to_value();
            if let Some(Value::String(description)) = schema.get_mut("description") {
                *description = in_file(description);
            }
            properties.insert(key, schema);
        }
    }
    let variables = json!({
        "type": "object",
        "additionalProperties": { "type": ["string", "number", "boolean"] }
    });
    let env = |description: &str| {
        let mut env = variables.clone();
        if let Value::Object(env) = &mut env {
            env.insert("description".to_owned(), description.into());
        }
        env
    };
    properties.insert("env".to_owned(), env("Variables for the workers' environment"));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cluster.toml",
        "description": "Apps for cluster",
        "type": "object",
        "properties": {
            "$schema": { "type": "string" },
            "apps": {
                "description": "Apps by name",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": { "$ref": "#/$defs/app" }
            }
        },
        "patternProperties": { "^x-": true },
        "required": ["apps"],
        "additionalProperties": false,
        "$defs": {
            "app": {
                "type": "object",
                "properties": properties,
                "patternProperties": {
                    "^env_.": env("Variables that go over those of `env` with --env NAME")
                },
                "required": ["script"],
                "additionalProperties": false
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{example::example, toml},
        *,
    };

    #[test]
    fn the_schema_accepts_the_example_and_refuses_what_is_refused() {
        let schema = schema();
        jsonschema::meta::validate(&schema).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let check = |text: &str| {
            let value = toml::parse(text).unwrap().to_json();
            validator.validate(&value).map_err(|error| error.to_string())
        };
        check(&example()).unwrap();
        let text = example();
        let live = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| is_entry(rest)).unwrap_or(line));
        check(&live.collect::<Vec<_>>().join("\n")).unwrap();
        for bad in [
            "",
            "[apps]",
            "[apps.web]\n",
            "[apps.web]\nscript = 1\n",
            "[apps.web]\nscript = 'a'\nkill_timout = 1\n",
            "[apps.web]\nscript = 'a'\nname = 'b'\n",
            "[apps.web]\nscript = 'a'\nenv = 'b'\n",
            "[apps.web]\nscript = 'a'\nenv_x = { A = [1] }\n",
            "[apps.web]\nscript = 'a'\nautorestart = 3\n",
            "[[apps]]\nscript = 'a'\n",
            "script = 'a'\n[apps.web]\nscript = 'a'\n",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    fn is_entry(line: &str) -> bool {
        let key = line.split(" = ").next().unwrap_or_default();
        line.starts_with("[apps.")
            || line.contains(" = ") && key.chars().all(|c| c.is_alphabetic() || c == '_')
    }
}
