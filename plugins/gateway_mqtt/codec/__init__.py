"""How do bytes become MQTT control packets, and back?"""
