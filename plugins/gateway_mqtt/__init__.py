"""How do MQTT clients meet the common model?"""
