"""What is an MQTT topic, message, session or refusal in the common model, and back?"""
