"""Train an ELMo from text: vocabulary, packed streams, softmax heads, a loop that resumes exactly."""
