CREATE TABLE guardrail_interventions (
  id BIGSERIAL NOT NULL,
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  text_key VARCHAR(200) NOT NULL,
  kind VARCHAR(8) NOT NULL CHECK (kind IN ('edit', 'degraded')),
  start INTEGER NOT NULL,
  "end" INTEGER NOT NULL,
  hmac VARCHAR(32) NOT NULL,
  action VARCHAR(16) NOT NULL,
  scores JSON NOT NULL,
  scores_after JSON,
  similarity FLOAT,
  failed_checks JSON NOT NULL,
  degraded JSON NOT NULL,
  policy VARCHAR(16) NOT NULL,
  detector VARCHAR(300) NOT NULL,
  lexicon VARCHAR(300) NOT NULL,
  rewriter VARCHAR(300) NOT NULL,
  before TEXT,
  after TEXT,
  PRIMARY KEY (id),
  CONSTRAINT guardrail_once UNIQUE (text_key, kind, start)
);
CREATE INDEX guardrail_interventions_at ON guardrail_interventions (at);
CREATE TABLE guardrail_schema (
  version INTEGER NOT NULL
);
CREATE TABLE guardrail_reviews (
  id BIGSERIAL NOT NULL,
  intervention BIGINT NOT NULL,
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  decision VARCHAR(16) NOT NULL CHECK (decision IN ('accepted', 'corrected')),
  correction TEXT,
  reviewer VARCHAR(100) NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(intervention) REFERENCES guardrail_interventions (id)
);
CREATE INDEX ix_guardrail_reviews_intervention ON guardrail_reviews (intervention);
