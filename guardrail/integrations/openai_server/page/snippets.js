// The playground's choice as code: for curl, for Python, for OpenAI's client.

const json = JSON.stringify;
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export const SNIPPETS = {
  curl({ text, policy, origin, locked }) {
    const key = locked ? ["  -H \"authorization: Bearer $GUARDRAIL_KEY\" \\"] : [];
    return [
      `curl ${origin}/v1/detoxify \\`,
      "  -H 'content-type: application/json' \\",
      ...key,
      `  -d ${shell(json({ input: text, policy }))}`,
    ].join("\n");
  },
  python({ text, policy }) {
    const steps = policy.ladder.map((step) => json(step)).join(", ");
    const ladder = policy.ladder.length === 1 ? `(${steps},)` : `(${steps})`;
    const threshold = policy.threshold === undefined ? "" : `, threshold=${policy.threshold}`;
    return [
      "from guardrail import Guard, Policy",
      "",
      `guard = Guard(policy=Policy(ladder=${ladder}${threshold}))`,
      `outcome = guard.check(${json(text)})`,
      "print(outcome.text)",
      "print(outcome.summary())",
    ].join("\n");
  },
  openai({ origin, locked, upstream }) {
    const key = locked ? "os.environ[\"GUARDRAIL_KEY\"]" : "\"any\"";
    return [
      ...(upstream ? [] : ["# This server has no model behind it yet: start it with --upstream URL.", ""]),
      ...(locked ? ["import os", ""] : []),
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url="${origin}/v1", api_key=${key})`,
      "answer = client.chat.completions.create(",
      "    model=\"your-model\",",
      "    messages=[{\"role\": \"user\", \"content\": \"Hello!\"}],",
      ")",
      "print(answer.choices[0].message.content)  # moderated",
    ].join("\n");
  },
};
