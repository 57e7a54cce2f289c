"""Checks JSON documents, one a line on standard input, against the schema that is named: `ok`, or what is wrong.

The keywords of JSON Schema that our schema uses, and no others: an unknown keyword is an error.
"""

import json
import re
import sys

NOTES = {"$schema", "$id", "title", "description", "default", "examples", "then", "else"}
TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def wrong(schema, value, path="$"):
    """What is wrong with a value; None when it is valid."""
    if isinstance(schema, bool):
        return None if schema else f"{path}: not allowed"
    for keyword, rule in schema.items():
        if keyword not in NOTES and (message := KEYWORDS[keyword](rule, value, schema, path)):
            return message
    return None


def first(found):
    """The first message."""
    return next((message for message in found if message), None)


def bound(kind, measure, test):
    """A keyword that bounds a measure of values of one type."""
    def check(rule, value, _schema, path):
        if isinstance(value, kind) and not isinstance(value, bool) and not test(measure(value), rule):
            return f"{path}: {measure(value)!r} is beyond {rule!r}"
        return None
    return check


def type_of(rule, value, _schema, path):
    """`type`."""
    good = isinstance(value, TYPES[rule]) and not isinstance(value, bool)
    return None if good else f"{path}: expected {rule}, found {value!r}"


def pattern(rule, value, _schema, path):
    """`pattern`. In Python `$` also matches before a last newline; in ECMA-262 it does not."""
    if isinstance(value, str) and not re.search(re.sub(r"(?<!\\)\$", r"\\Z", rule), value):
        return f"{path}: {value!r} does not match {rule}"
    return None


def properties(rule, value, _schema, path):
    """`properties`."""
    if not isinstance(value, dict):
        return None
    return first(wrong(rule[key], item, f"{path}.{key}") for key, item in value.items() if key in rule)


def additional(rule, value, schema, path):
    """`additionalProperties`."""
    if not isinstance(value, dict):
        return None
    more = {key: item for key, item in value.items() if key not in schema.get("properties", {})}
    if rule is False:
        return f"{path}: unknown {sorted(more)}" if more else None
    return first(wrong(rule, item, f"{path}.{key}") for key, item in more.items())


def names(rule, value, _schema, path):
    """`propertyNames`."""
    return first(wrong(rule, key, f"{path}.{key}") for key in value) if isinstance(value, dict) else None


def items(rule, value, schema, path):
    """`items`: those after `prefixItems`."""
    if not isinstance(value, list):
        return None
    start = len(schema.get("prefixItems", []))
    return first(wrong(rule, item, f"{path}[{start + at}]") for at, item in enumerate(value[start:]))


def prefix(rule, value, _schema, path):
    """`prefixItems`."""
    if not isinstance(value, list):
        return None
    return first(wrong(one, item, f"{path}[{at}]") for at, (one, item) in enumerate(zip(rule, value)))


def required(rule, value, _schema, path):
    """`required`."""
    missing = [key for key in rule if isinstance(value, dict) and key not in value]
    return f"{path}: missing {missing}" if missing else None


def any_of(rule, value, _schema, path):
    """`anyOf`."""
    found = [wrong(one, value, path) for one in rule]
    return None if None in found else " or ".join(found)


def one_of(rule, value, _schema, path):
    """`oneOf`."""
    count = [wrong(one, value, path) for one in rule].count(None)
    return None if count == 1 else f"{path}: {count} of the forms fit, expected one"


def all_of(rule, value, _schema, path):
    """`allOf`."""
    return first(wrong(one, value, path) for one in rule)


def none_of(rule, value, _schema, path):
    """`not`."""
    return f"{path}: {value!r} is what it must not be" if wrong(rule, value, path) is None else None


def condition(rule, value, schema, path):
    """`if`, with `then` and `else` beside it."""
    return wrong(schema.get("then" if wrong(rule, value, path) is None else "else", True), value, path)


def unique(_rule, value, _schema, path):
    """`uniqueItems`."""
    texts = [json.dumps(item, sort_keys=True) for item in value] if isinstance(value, list) else []
    return None if len(texts) == len(set(texts)) else f"{path}: an item appears twice"


KEYWORDS = {
    "type": type_of, "pattern": pattern, "properties": properties, "additionalProperties": additional,
    "propertyNames": names, "items": items, "prefixItems": prefix, "required": required, "anyOf": any_of,
    "oneOf": one_of,
    "uniqueItems": unique, "allOf": all_of, "not": none_of, "if": condition,
    "const": lambda rule, value, _, path: None if value == rule else f"{path}: expected {rule!r}",
    "enum": lambda rule, value, _, path: None if value in rule else f"{path}: expected one of {rule}",
    "minimum": bound(int, int, lambda a, b: a >= b), "maximum": bound(int, int, lambda a, b: a <= b),
    "maxLength": bound(str, len, lambda a, b: a <= b),
    "minItems": bound(list, len, lambda a, b: a >= b), "maxItems": bound(list, len, lambda a, b: a <= b),
    "minProperties": bound(dict, len, lambda a, b: a >= b), "maxProperties": bound(dict, len, lambda a, b: a <= b),
}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    for line in sys.stdin:
        print(wrong(schema, json.loads(line)) or "ok")


main()
