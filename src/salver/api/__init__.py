"""The programming model: deployments, applications, and the verbs that run them. Descriptions only run elsewhere."""
