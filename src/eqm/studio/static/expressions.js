// Compositions such as `7 + 0.5*left*3 - boot`: from text to terms and back.
// The grammar is that of src/eqm/tasks/expressions.py.

const TOKEN = new RegExp([
  String.raw`\s*(?:(?<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)`,
  String.raw`(?<name>[\p{L}\p{Nl}\p{No}_][\p{L}\p{N}\p{M}_]*)`,
  `'(?<single>[^']*)'`,
  `"(?<double>[^"]*)"`,
  "(?<sign>[-+*:~])",
  "(?<end>$))",
].join("|"), "uy");
const NAME = /^[\p{L}_][\p{L}\p{N}_]*$/u;
const NONE = ["none", "null"];

/** The masks that every model of pictures has. */
export const HALVES = ["left", "right", "top", "bottom"];

/**
 * The terms {sign, weight, masks, model, label} of an expression, in order. `label` is text.
 * Throws an Error that says what was expected at which position.
 */
export function parse(expression) {
  const tokens = tokensOf(expression);
  const terms = [];
  for (;;) {
    const sign = isSign(tokens[0]) ? tokens.shift().text : "+";
    terms.push({ sign, ...termOf(tokens) });
    if (tokens[0].kind === "end") return terms;
    if (!isSign(tokens[0])) throw expected("+, - or the end", tokens[0]);
  }
}

/** The expression of terms. `classes` are the names that need quotes where they are no plain names. */
export function format(terms) {
  return terms
    .map(({ sign, weight, masks, model, label }, i) => {
      const factors = [...(weight === 1 ? [] : [String(weight)]), ...masks.map(maskText)];
      const name = (model ? `${quoted(model)}:` : "") + quoted(label);
      const before = i ? ` ${sign} ` : sign === "-" ? "-" : "";
      return before + [...factors, name].join("*");
    })
    .join("");
}

const isSign = (token) => token.kind === "+" || token.kind === "-";
const maskText = (mask) => (mask.startsWith("~") ? `~${quoted(mask.slice(1))}` : quoted(mask));

function quoted(text) {
  const plain = NAME.test(text) || /^(0|[1-9]\d{0,17})$/.test(text);
  return plain ? text : text.includes("'") ? `"${text}"` : `'${text}'`;
}

function tokensOf(expression) {
  const tokens = [];
  let end = 0;
  for (;;) {
    TOKEN.lastIndex = end;
    const found = TOKEN.exec(expression);
    if (!found) {
      const start = expression.length - expression.slice(end).trimStart().length;
      const stray = { kind: "stray", text: expression[start], position: start + 1 };
      throw expected("a label, a weight or a sign", stray);
    }
    const [group, text] = Object.entries(found.groups).find(([, value]) => value !== undefined);
    const isQuoted = group === "single" || group === "double";
    const kind = group === "sign" ? text : isQuoted ? "quoted" : group;
    end = TOKEN.lastIndex;
    tokens.push({ kind, text, position: end - text.length - 2 * isQuoted + 1 });
    if (kind === "end") return tokens;
  }
}

function termOf(tokens) {
  let weight = 1;
  const masks = [];
  for (;;) {
    const complement = tokens[0].kind === "~" ? tokens.shift() : null;
    let token = tokens.shift();
    if (tokens[0]?.kind === "*") {
      if (token.kind === "number" && !complement) {
        weight *= Number(token.text);
        if (!Number.isFinite(weight)) throw expected("a finite weight", token);
      } else if (token.kind === "name" || token.kind === "quoted") {
        masks.push((complement ? "~" : "") + token.text);
      } else {
        throw expected("a number or a mask before *", token);
      }
      tokens.shift();
      continue;
    }
    if (complement) throw expected("~ before a mask, as in ~left*3", complement);
    let model = "";
    if ((token.kind === "name" || token.kind === "quoted") && tokens[0]?.kind === ":") {
      model = token.text;
      tokens.shift();
      token = tokens.shift();
    }
    const whole = token.kind === "number" && /^\d{1,18}$/.test(token.text);
    if (!whole && token.kind !== "name" && token.kind !== "quoted") {
      throw expected("a label (a whole number, a name or none)", token);
    }
    const none = token.kind === "name" && NONE.includes(token.text);
    return { weight, masks, model, label: none ? "none" : token.text };
  }
}

function expected(what, token) {
  const found = token.kind === "end" ? "the end" : `“${token.text}”`;
  return new Error(`Expected ${what} at position ${token.position}; got ${found}.`);
}
